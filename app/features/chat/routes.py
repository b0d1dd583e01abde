"""`/chat`: conversations with the assistant, their owner's and nobody else's, not even an admin's."""

from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any

import orjson
from fastapi import Header, Request, Response
from starlette.responses import StreamingResponse

from app.core.errors import NotFoundError
from app.core.ids import is_id
from app.core.moments import from_milliseconds, timestamp, to_milliseconds
from app.features.chat.chat import Chat, ChatOfReplica
from app.features.chat.documents import Outcome, Run, shown_conversation, shown_message
from app.features.chat.errors import RunFailedError
from app.features.chat.events import RunEvents
from app.features.chat.schemas import ConversationOut, HistoryOut, NewMessage, Reply, RunOut
from app.http.admission import Caller, Kit
from app.http.context import request_id
from app.http.idempotency import KeyedCall, KeyedCaller
from app.http.limits import limiter, per_user, setting
from app.http.paging import LIMIT_DEFAULT, PageCursor, PageLimit, decode_cursor, page_of
from app.http.responses import JsonResponse, encode
from app.http.routing import ApiRouter
from app.http.schemas import Page
from app.state.keyed import Answer
from app.state.kit import StateKit
from app.state.mongo import Document
from app.state.principals import Principal
from app.state.session_documents import Owner

router = ApiRouter(prefix="/chat", tags=["Chat"])
_limited = limiter.shared_limit(setting("limit_chat"), scope="chat", key_func=per_user)

_STREAM_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}, "description": "delta, done, error; see docs/chat.md"}
}


@router.post("", response_model=Reply, summary="Ask the assistant")
@_limited
async def ask(request: Request, body: NewMessage, chat: ChatOfReplica, call: KeyedCaller) -> Response:
    """Ask, and wait for the whole answer. Both messages are stored before it comes.

    `409 run_in_progress` while the conversation's last question is being answered. Repeated with its
    `Idempotency-Key` it waits for the same answer.
    """
    run, headers = await _asked(chat, call, body)
    outcome = run if isinstance(run, Outcome) else await chat.runs.wait(run)
    headers = {"X-Run-ID": outcome.run_id, **headers}
    if outcome.state == "failed":
        raise RunFailedError(outcome, headers)
    return JsonResponse(
        {
            "session_id": outcome.conversation_id,
            "message_id": outcome.answer_id,
            "reply": outcome.text,
            "created_at": timestamp(outcome.finished_at),
        },
        headers=headers,
    )


@router.post("/stream", responses=_STREAM, response_class=Response, summary="Ask, and follow the answer")
@_limited
async def ask_and_follow(
    request: Request, body: NewMessage, kit: Kit, chat: ChatOfReplica, call: KeyedCaller
) -> Response:
    """Ask, and get the answer as server-sent events. It is written on if the client leaves.

    `X-Run-ID` names the answer for resuming and stopping it, `X-Session-ID` the conversation. Repeated with
    its `Idempotency-Key` it follows the same answer from its start.
    """
    run, headers = await _asked(chat, call, body)
    return _events(kit, chat, call.principal, run, since="", headers=headers)


@router.get("/runs/{run_id}/stream", responses=_STREAM, response_class=Response, summary="Follow an answer")
async def follow(
    *,
    run_id: str,
    kit: Kit,
    chat: ChatOfReplica,
    caller: Caller,
    last_event_id: Annotated[str | None, Header(max_length=64)] = None,
) -> Response:
    """Follow an answer from the event after `Last-Event-ID`, or from its start, through any replica."""
    run = await chat.runs.store.find_run(_owner(caller), _possible(run_id, "run"))
    return _events(kit, chat, caller, run, since=last_event_id or "", headers={})


@router.post("/runs/{run_id}/stop", response_model=RunOut, summary="Stop an answer")
async def stop(run_id: str, chat: ChatOfReplica, caller: Caller) -> Response:
    """Stop an answer, whichever replica writes it. What was written stays; one that is over stays so."""
    outcome = await chat.runs.stop(_owner(caller), _possible(run_id, "run"))
    return JsonResponse(
        {
            "run_id": run_id,
            "session_id": outcome.conversation_id,
            "state": outcome.state,
            "message_id": outcome.answer_id,
            "text": outcome.text,
        }
    )


@router.get("/sessions", response_model=Page[ConversationOut], summary="List conversations")
async def list_conversations(
    chat: ChatOfReplica, caller: Caller, cursor: PageCursor = None, limit: PageLimit = LIMIT_DEFAULT
) -> Response:
    """List the caller's conversations, newest first."""
    position = decode_cursor("conversations", cursor, (int, str))
    before = None if position is None else (from_milliseconds(int(position[0])), str(position[1]))
    found = await chat.runs.store.page(_owner(caller), before=before, limit=limit + 1)
    page = page_of(found, limit=limit, kind="conversations", position_of=_position)
    return JsonResponse({**page, "items": [shown_conversation(row) for row in page["items"]]})


@router.get("/history/{session_id}", response_model=HistoryOut, summary="Read a conversation")
async def history(
    session_id: str,
    chat: ChatOfReplica,
    caller: Caller,
    cursor: PageCursor = None,
    limit: PageLimit = LIMIT_DEFAULT,
) -> Response:
    """Read a conversation: the newest page first, and within a page in order."""
    position = decode_cursor("messages", cursor, (int, int))
    before = None if position is None else (int(position[0]), int(position[1]))
    store, owner = chat.runs.store, _owner(caller)
    conversation = await store.get(owner, _possible(session_id, "chat"))
    newest_first = (await store.history(owner, conversation, before=before, limit=limit + 1))[::-1]
    page = page_of(newest_first, limit=limit, kind="messages", position_of=_place)
    items = [shown_message(row) for row in page["items"][::-1]]
    return JsonResponse({**page, "session_id": session_id, "items": items})


@router.delete("/{session_id}", status_code=204, summary="Delete a conversation")
async def delete_conversation(session_id: str, chat: ChatOfReplica, caller: Caller) -> Response:
    """Delete a conversation with all its messages, and the answer that is being written to it."""
    await chat.runs.delete(_owner(caller), _possible(session_id, "chat"))
    return Response(status_code=204)


async def _asked(chat: Chat, call: KeyedCall, body: NewMessage) -> tuple[Run | Outcome, Mapping[str, str]]:
    """Start the answering of a question, or find what became of it if it was asked before with the same key;
    return that with the headers that tell so. Raises NotFoundError if it was deleted meanwhile.
    """
    made = await call.made_or_answer(
        lambda keyed: chat.runs.start(
            call.principal, body.session_id, body.message, request_id=request_id(), keyed=keyed
        ),
        answer_of=_name_of,
    )
    if isinstance(made, Run):
        return made, {}
    run_id = orjson.loads(made.body)["run_id"]
    return await chat.runs.store.find_run(_owner(call.principal), run_id), made.headers


def _name_of(run: Run) -> Answer:
    """Return what a key remembers of a question: there is no more to it when it is kept."""
    return Answer(200, encode({"run_id": run.id, "session_id": run.conversation_id}))


def _events(
    kit: StateKit,
    chat: Chat,
    caller: Principal,
    run: Run | Outcome,
    *,
    since: str,
    headers: Mapping[str, str],
) -> Response:
    run_id = run.id if isinstance(run, Run) else run.run_id
    events = RunEvents(
        kit,
        chat.runs,
        chat.draining,
        owner=_owner(caller),
        run_id=run_id,
        since=since,
        request_id=request_id(),
    )
    stream: AsyncIterator[bytes] = events.stream(run)
    named = {"X-Run-ID": run_id, "X-Session-ID": run.conversation_id}
    return StreamingResponse(
        stream, media_type="text/event-stream", headers={**_STREAM_HEADERS, **named, **headers}
    )


def _owner(caller: Principal) -> Owner:
    return Owner(caller.tenant_id, caller.user_id)


def _possible(text: str, prefix: str) -> str:
    """Return an id that may exist. Raises NotFoundError for others."""
    if not is_id(text, prefix):
        raise NotFoundError
    return text


def _position(conversation: Document) -> tuple[int, str]:
    return to_milliseconds(conversation["created_at"]), conversation["_id"]


def _place(message: Document) -> tuple[int, int]:
    return message["turn"], message["n"]
