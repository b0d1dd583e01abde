"""What is stored of a conversation.

- `conversations`: {_id chat_…, tenant_id, user_id, title, status: idle|busy|deleted, turn, created_at,
  updated_at, deleted_at?, outbox?, run?}. While a turn is answered, `run` is all of it: {id run_…, turn,
  state, epoch, owner, lease_ends_at, request_id, stopping, question {id, text, at}, answer_id, steps
  [{text_end, calls, results}], text, problem, finished_at}. So whatever happens to a run is one update of one
  document.
- `messages`: {_id msg_…, tenant_id, user_id, conversation_id, turn, n, role, content, created_at}, one a
  message; `n` is 0 for the question and 1 for the answer, which also has {run_id, state, steps, problem}.
  They are copied out of `run` when it is over (`ConversationStore.settle`).

States of a run: running → done | failed | stopped. `steps` are the journal: tool calls with their results,
each with the length that the answer's text had when the tools were called.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Self

from app.core.ids import new_id
from app.core.moments import timestamp
from app.state.mongo import Document
from app.state.session_documents import Owner

RunState = Literal["running", "done", "failed", "stopped"]
Role = Literal["user", "assistant"]


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call as the model made it; `arguments` is JSON text, and not to be trusted."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Step:
    """Tool calls and their results (JSON text), and how long the answer's text was before them."""

    text_end: int
    calls: tuple[Call, ...]
    results: tuple[str, ...]

    @classmethod
    def from_document(cls, row: Mapping[str, Any]) -> Self:
        """Read a row of `steps`."""
        calls = tuple(Call(call["id"], call["name"], call["arguments"]) for call in row["calls"])
        return cls(row["text_end"], calls, tuple(row["results"]))

    def document(self) -> Document:
        """Return the row to store."""
        calls = [{"id": call.id, "name": call.name, "arguments": call.arguments} for call in self.calls]
        return {"text_end": self.text_end, "calls": calls, "results": list(self.results)}


@dataclass(frozen=True, slots=True)
class Run:
    """The answering of one question, as of when it was read. `text` is what was journaled of the answer."""

    id: str
    conversation_id: str
    owner: Owner
    turn: int
    state: RunState
    epoch: int
    lease_ends_at: datetime
    request_id: str
    question: str
    answer_id: str
    steps: tuple[Step, ...]
    text: str
    is_stopping: bool
    conversation: Mapping[str, Any]
    """What all this was read from."""

    @classmethod
    def from_document(cls, conversation: Mapping[str, Any]) -> Self:
        """Read the run inside a conversation that has one."""
        run = conversation["run"]
        return cls(
            id=run["id"],
            conversation_id=conversation["_id"],
            owner=Owner(conversation["tenant_id"], conversation["user_id"]),
            turn=run["turn"],
            state=run["state"],
            epoch=run["epoch"],
            lease_ends_at=run["lease_ends_at"],
            request_id=run["request_id"],
            question=run["question"]["text"],
            answer_id=run["answer_id"],
            steps=tuple(Step.from_document(row) for row in run["steps"]),
            text=run["text"],
            is_stopping=run["stopping"],
            conversation=conversation,
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. `problem` is that of a failed one."""

    run_id: str
    conversation_id: str
    answer_id: str
    state: RunState
    text: str
    problem: Mapping[str, Any] | None
    finished_at: datetime


def new_run(question: str, *, by: str, request_id: str, at: datetime) -> Document:
    """Return a run of the process `by` as it begins, but for its turn and its lease."""
    return {
        "id": new_id("run"),
        "state": "running",
        "epoch": 1,
        "owner": by,
        "stopping": False,
        "request_id": request_id,
        "question": {"id": new_id("msg"), "text": question, "at": at},
        "answer_id": new_id("msg"),
        "steps": [],
        "text": "",
        "problem": None,
        "finished_at": None,
    }


def messages_of(conversation: Mapping[str, Any]) -> list[Document]:
    """Return the question and, once the run is over, the answer that a conversation's run holds, as they are
    stored in `messages`.
    """
    run = conversation["run"]
    shared = {name: conversation[name] for name in ("tenant_id", "user_id")}
    shared |= {"conversation_id": conversation["_id"], "turn": run["turn"]}
    question = {
        "_id": run["question"]["id"],
        **shared,
        "n": 0,
        "role": "user",
        "content": run["question"]["text"],
        "created_at": run["question"]["at"],
    }
    if run["state"] == "running":
        return [question]
    answer = {
        "_id": run["answer_id"],
        **shared,
        "n": 1,
        "role": "assistant",
        "content": run["text"],
        "created_at": run["finished_at"],
        "run_id": run["id"],
        **{name: run[name] for name in ("state", "steps", "problem")},
    }
    return [question, answer]


def outcome_of(answer: Mapping[str, Any]) -> Outcome:
    """Read how a run ended from its answer."""
    return Outcome(
        run_id=answer["run_id"],
        conversation_id=answer["conversation_id"],
        answer_id=answer["_id"],
        state=answer["state"],
        text=answer["content"],
        problem=answer["problem"],
        finished_at=answer["created_at"],
    )


def shown_message(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message as it is answered."""
    return {
        "id": message["_id"],
        "role": message["role"],
        "content": message["content"],
        "created_at": timestamp(message["created_at"]),
    }


def shown_conversation(conversation: Mapping[str, Any]) -> dict[str, Any]:
    """Return a conversation as it is listed; `run_id` is that of the run under way."""
    run = conversation.get("run") or {}
    return {
        "id": conversation["_id"],
        "title": conversation["title"],
        "turns": conversation["turn"],
        "run_id": run.get("id") if run.get("state") == "running" else None,
        "created_at": timestamp(conversation["created_at"]),
        "updated_at": timestamp(conversation["updated_at"]),
    }
