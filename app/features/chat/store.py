"""Conversations, their messages, and the one run a conversation may have.

Guarantees
- One write starts a turn: it counts the turn, keeps the question and makes the run, on the condition that
  none runs. Of any number of writers on any replicas one succeeds. With a request's key it is a transaction,
  so that the key is taken if and only if the turn was.
- Whatever changes a run names its epoch; taking a run over raises it. So a former owner, killed or frozen or
  just slow, changes nothing after its successor has begun, and a run ends once.
- A run is taken over only if its lease is over by MongoDB's own clock, or to be stopped.
- What a run leaves (question, answer) is copied to `messages` by whoever comes by, any number of times: the
  ids are the run's, and (conversation, turn, n) is unique.
- Owner and tenant are in every query that somebody's request causes.

Does not guarantee that the messages of a run that just ended are in `messages` yet: `find_run` and `history`
look into the conversation as well.

When MongoDB is gone: StoreUnavailableError. Redis is not involved. Documents are described in `documents`,
indexes are in `state.feature_indexes`. A turn costs the same however long the conversation is: one insert or
update, one read, one update for each step, and one write at its end; settling is two more for many at once.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final

from pymongo import UpdateOne
from pymongo.errors import BulkWriteError

from app.core.errors import NotFoundError
from app.core.ids import new_id
from app.core.moments import to_the_millisecond
from app.features.chat.documents import Outcome, Run, RunState, Step, messages_of, new_run, outcome_of
from app.features.chat.errors import RunInProgressError
from app.state.job_documents import NewJob
from app.state.keyed import Keyed
from app.state.kit import StateKit
from app.state.mongo import ClientSession, Document, from_now, literal, one_page
from app.state.session_documents import Owner

COLLECTION: Final = "conversations"
"""Whose documents have an outbox."""
TITLE: Final = "chat.title"
"""The job that has a language model title a conversation."""
LEASE: Final = timedelta(seconds=2)
"""After this long without a renewal a run may be taken over."""
SETTLES_WITHIN: Final = timedelta(seconds=10)
"""After the end of its lease others settle a run that has ended. Nobody who reads waits for it."""
_LEASE: Final = from_now(LEASE // timedelta(milliseconds=1))
_LEASE_RUNS: Final[Document] = {"$gt": [{"$toLong": "$run.lease_ends_at"}, {"$toLong": "$$NOW"}]}
_DUPLICATE: Final = 11000


class _NotIdleError(Exception):
    """The conversation has a run, or is not there."""


class ConversationStore:
    """The conversations of all users. Cheap to make."""

    def __init__(self, kit: StateKit) -> None:
        """Take from the kit what it needs."""
        self._mongo = kit.mongo
        self._clock = kit.clock
        self._jobs = kit.jobs
        self._idempotency = kit.idempotency
        self._has_titles = bool(kit.settings.chat_base_url)
        self._conversations = kit.mongo.collection(COLLECTION)
        self._messages = kit.mongo.collection("messages")

    # -- starting ------------------------------------------------------------------------------------------

    async def start_first(
        self,
        owner: Owner,
        question: str,
        *,
        title: str,
        by: str,
        request_id: str,
        keyed: Keyed[Run] | None = None,
    ) -> Run:
        """Make a conversation with its first question and a run of the process `by`.

        Raises StoreUnavailableError, and with a key what `Idempotency.run` raises.
        """
        now = self._now()
        fresh = new_run(question, by=by, request_id=request_id, at=now)
        conversation = {
            "_id": new_id("chat"),
            **owner.filter,
            "title": title,
            "status": "busy",
            "turn": 1,
            "created_at": now,
            "updated_at": now,
            "run": {**fresh, "turn": 1, "lease_ends_at": now + LEASE},
        }
        if self._has_titles:
            payload = {"conversation_id": conversation["_id"]}
            job = NewJob(TITLE, payload, tenant_id=owner.tenant_id, user_id=owner.user_id)
            conversation["outbox"] = self._jobs.outbox([job])  # a worker relays it in a few seconds

        async def insert(session: ClientSession) -> bool:
            async with self._mongo.guard("conversations.insert"):
                await self._conversations.insert_one(conversation, session=session)
            return True

        run_made = Run.from_document(conversation)
        await self._idempotency.write(keyed, insert, run_made)
        return run_made

    async def start_next(
        self,
        owner: Owner,
        conversation_id: str,
        question: str,
        *,
        by: str,
        request_id: str,
        keyed: Keyed[Run] | None = None,
    ) -> Run:
        """Add a question to a conversation, with a run of the process `by`.

        Raises NotFoundError, RunInProgressError, and with a key what `Idempotency.run` raises.
        """
        now = self._now()
        fresh = new_run(question, by=by, request_id=request_id, at=now)
        turn = {"$add": ["$turn", 1]}
        run = {name: literal(value) for name, value in fresh.items()}
        changes: Document = {
            "status": "busy",
            "turn": turn,
            "updated_at": now,
            "run": {**run, "turn": turn, "lease_ends_at": _LEASE},
        }
        idle = {"_id": conversation_id, **owner.filter, "status": "idle"}

        async def begin(session: ClientSession) -> Run:
            async with self._mongo.guard("conversations.start"):
                result = await self._conversations.update_one(idle, [{"$set": changes}], session=session)
            if result.matched_count == 0:
                raise _NotIdleError
            return await self._get_run(conversation_id, fresh["id"], session)

        while True:
            with suppress(_NotIdleError):
                return await (begin(None) if keyed is None else self._idempotency.run(keyed, begin))
            found = await self.get(owner, conversation_id)
            if "run" in found:
                if found["run"]["state"] == "running":
                    raise RunInProgressError(found["run"]["id"])
                await self.settle([found])

    async def _get_run(self, conversation_id: str, run_id: str, session: ClientSession) -> Run:
        """Return the run that was just started. Raises NotFoundError if it was deleted already."""
        started = {"_id": conversation_id, "run.id": run_id}
        async with self._mongo.guard("conversations.find_run"):
            found = await self._conversations.find_one(started, session=session)
        if found is None:
            raise NotFoundError
        return Run.from_document(found)

    # -- what an owner does --------------------------------------------------------------------------------

    async def renew(self, by: str) -> dict[str, int]:
        """Renew the leases of all runs of the process `by`; return their epochs by id.

        Not those of runs that have ended: what was not settled is for others to find.
        """
        mine = {"run.owner": by, "run.state": "running"}
        async with self._mongo.guard("conversations.renew"):
            await self._conversations.update_many(mine, [{"$set": {"run.lease_ends_at": _LEASE}}])
        async with self._mongo.guard("conversations.owned"):
            rows = self._conversations.find(mine, {"run.id": 1, "run.epoch": 1})
            return {row["run"]["id"]: row["run"]["epoch"] async for row in rows}

    async def journal_step(self, run: Run, step: Step, *, text: str) -> bool:
        """Keep a step and the text so far; False if the run is not ours any more."""
        return await self._update_run(
            run, {"$push": {"run.steps": step.document()}, "$set": {"run.text": text}}
        )

    async def journal_text(self, run: Run, text: str) -> bool:
        """Keep the text so far; False if the run is not ours any more."""
        return await self._update_run(run, {"$set": {"run.text": text}})

    async def finish(
        self,
        run: Run,
        state: RunState,
        text: str,
        problem: Mapping[str, Any] | None = None,
        *,
        steps: Sequence[Step] = (),
    ) -> Document | None:
        """End a run and return its conversation, to be settled; None if it is not ours any more.

        From here on question and answer are safe. `steps` are those that were journaled since `run` was read.
        """
        ended = {"state": state, "text": text, "problem": problem, "finished_at": self._now()}
        changes = {f"run.{name}": value for name, value in ended.items()}
        if not await self._update_run(run, {"$set": changes}):
            return None
        before = run.conversation["run"]
        all_steps = [*before["steps"], *(step.document() for step in steps)]
        return {**run.conversation, "run": {**before, **ended, "steps": all_steps}}

    async def release(self, run: Run) -> None:
        """Let another process take the run over at once."""
        await self._update_run(run, [{"$set": {"run.lease_ends_at": "$$NOW", "run.owner": ""}}])

    async def _update_run(self, run: Run, update: Document | list[Document]) -> bool:
        running = {"run.id": run.id, "run.epoch": run.epoch, "run.state": "running"}
        async with self._mongo.guard("conversations.update_run"):
            result = await self._conversations.update_one({"_id": run.conversation_id, **running}, update)
        return result.matched_count == 1

    # -- what others do ------------------------------------------------------------------------------------

    async def left_over(self, limit: int) -> list[Document]:
        """Return conversations with a run that nobody works on: its lease is over."""
        over = {"run.lease_ends_at": {"$lt": self._clock.now()}, "run.state": "running"}
        async with self._mongo.guard("conversations.find_left_over"):
            return await self._conversations.find(over).limit(limit).to_list(None)

    async def left_unsettled(self, limit: int) -> list[Document]:
        """Return conversations whose run has ended, and whose owner has had its time to settle it."""
        over = {"run.lease_ends_at": {"$lt": self._clock.now() - SETTLES_WITHIN}}
        ended = {**over, "run.state": {"$ne": "running"}}
        async with self._mongo.guard("conversations.find_unsettled"):
            return await self._conversations.find(ended).limit(limit).to_list(None)

    async def take_over(self, run: Run, *, by: str, stopping: bool = False) -> Run | None:
        """Make the process `by` the owner of a run whose lease is over, or to stop it; None if others were
        quicker, or it is not to be had.
        """
        changes: Document = {
            "run.epoch": run.epoch + 1,
            "run.owner": literal(by),
            "run.lease_ends_at": _LEASE,
        }
        if stopping:
            changes["run.stopping"] = True
        else:
            changes = {name: {"$cond": [_LEASE_RUNS, f"${name}", value]} for name, value in changes.items()}
        running = {"run.id": run.id, "run.epoch": run.epoch, "run.state": "running"}
        async with self._mongo.guard("conversations.take_over"):
            result = await self._conversations.update_one(
                {"_id": run.conversation_id, **running}, [{"$set": changes}]
            )
        if result.modified_count == 0:
            return None
        async with self._mongo.guard("conversations.find_run"):
            taken = {"_id": run.conversation_id, "run.id": run.id, "run.epoch": run.epoch + 1}
            found = await self._conversations.find_one(taken)
        return None if found is None or found["run"]["owner"] != by else Run.from_document(found)

    async def settle(self, conversations: Sequence[Mapping[str, Any]]) -> None:
        """Copy what ended runs left to `messages` and free their conversations for the next. Idempotent."""
        messages = [message for conversation in conversations for message in messages_of(conversation)]
        async with self._mongo.guard("messages.insert"):
            try:
                await self._messages.insert_many(messages, ordered=False)
            except BulkWriteError as error:
                if any(row["code"] != _DUPLICATE for row in error.details["writeErrors"]):
                    raise
        updates = [
            UpdateOne(
                {"_id": conversation["_id"], "run.id": conversation["run"]["id"]},
                {
                    "$unset": {"run": 1},
                    "$set": {"status": "idle", "updated_at": conversation["run"]["finished_at"]},
                },
            )
            for conversation in conversations
        ]
        async with self._mongo.guard("conversations.settle"):
            result = await self._conversations.bulk_write(updates, ordered=False)
        if result.matched_count < len(updates):
            await self._remove_if_deleted([conversation["_id"] for conversation in conversations])

    # -- reading -------------------------------------------------------------------------------------------

    async def get(self, owner: Owner, conversation_id: str) -> Document:
        """Return a conversation. Raises NotFoundError."""
        async with self._mongo.guard("conversations.find"):
            found: Document | None = await self._conversations.find_one(
                {"_id": conversation_id, **owner.filter}
            )
        if found is None or found["status"] == "deleted":
            raise NotFoundError
        return found

    async def page(self, owner: Owner, *, before: tuple[datetime, str] | None, limit: int) -> list[Document]:
        """Return up to `limit` conversations, newest first, made before the one with this date and id."""
        async with self._mongo.guard("conversations.page"):
            alive = {"status": {"$ne": "deleted"}}
            rows = self._conversations.aggregate(
                one_page(owner.filter, also=alive, order=-1, after=before, limit=limit)
            )
            return [row async for row in rows]

    async def find_run(self, owner: Owner, run_id: str) -> Run | Outcome:
        """Return a run that is under way, or how it ended. Raises NotFoundError."""
        async with self._mongo.guard("conversations.find_run"):
            found = await self._conversations.find_one({"run.id": run_id, **owner.filter})
        if found is not None and found["run"]["state"] == "running":
            return Run.from_document(found)
        if found is not None:
            return outcome_of(messages_of(found)[1])
        async with self._mongo.guard("messages.find_run"):
            answer = await self._messages.find_one({"run_id": run_id, **owner.filter})
        if answer is None:
            raise NotFoundError
        return outcome_of(answer)

    async def history(
        self, owner: Owner, conversation: Mapping[str, Any], *, before: tuple[int, int] | None, limit: int
    ) -> list[Document]:
        """Return up to `limit` messages with some text, in order: the last before the position (turn, n).

        Every turn has a question, so the last `limit` turns hold enough of them.
        """
        end = before or (conversation["turn"] + 1, 0)
        found = await self._turns(owner, conversation["_id"], first=end[0] - limit, last=end[0])
        if "run" in conversation:
            known = {row["_id"] for row in found}
            found += [row for row in messages_of(conversation) if row["_id"] not in known]
        rows = sorted(found, key=lambda row: (row["turn"], row["n"]))
        return [row for row in rows if row["content"] and (row["turn"], row["n"]) < end][-limit:]

    async def context(self, run: Run, *, turns: int) -> list[Document]:
        """Return the messages of the last turns before a run's, in order."""
        found = await self._turns(run.owner, run.conversation_id, first=run.turn - turns, last=run.turn - 1)
        return sorted(found, key=lambda row: (row["turn"], row["n"]))

    async def _turns(self, owner: Owner, conversation_id: str, *, first: int, last: int) -> list[Document]:
        # not $lte: the local cluster's engine leaves the last turn out, whose keys go on behind it
        turns = {"$gte": max(first, 1), "$lt": last + 1}
        wanted = {"conversation_id": conversation_id, "turn": turns}
        async with self._mongo.guard("messages.turns"):
            rows = self._messages.aggregate([{"$match": wanted}, {"$match": owner.filter}])
            return [row async for row in rows]

    async def first_question(self, owner: Owner, conversation_id: str) -> str:
        """Return what a conversation began with. Raises NotFoundError."""
        conversation = await self.get(owner, conversation_id)
        first = await self.history(owner, conversation, before=(1, 1), limit=1)
        return str(first[0]["content"]) if first else ""

    async def rename(self, owner: Owner, conversation_id: str, title: str) -> None:
        """Give a conversation another title, unless it is deleted."""
        living = {"_id": conversation_id, **owner.filter, "status": {"$ne": "deleted"}}
        async with self._mongo.guard("conversations.rename"):
            await self._conversations.update_one(living, {"$set": {"title": title}})

    # -- deleting ------------------------------------------------------------------------------------------

    async def delete(self, owner: Owner, conversation_id: str) -> Run | None:
        """Delete a conversation with its messages and return the run it had, which is over with it.

        What is left is a stone without content, for `sweep`. Raises NotFoundError.
        """
        found = await self.get(owner, conversation_id)
        gone = {"status": "deleted", "deleted_at": self._now(), "title": ""}
        async with self._mongo.guard("conversations.delete"):
            await self._conversations.update_one(
                {"_id": conversation_id, **owner.filter}, {"$set": gone, "$unset": {"run": 1, "outbox": 1}}
            )
        await self._remove_messages(conversation_id)
        return Run.from_document(found) if "run" in found else None

    async def sweep(self, deleted_before: datetime) -> None:
        """Remove the stones of conversations deleted before then, and messages that a process which was
        frozen meanwhile may have added.
        """
        async with self._mongo.guard("conversations.find_deleted"):
            rows = self._conversations.find({"deleted_at": {"$lt": deleted_before}}, {"_id": 1})
            ids = [row["_id"] for row in await rows.limit(100).to_list(None)]
        for conversation_id in ids:
            await self._remove_messages(conversation_id)
            async with self._mongo.guard("conversations.sweep"):
                await self._conversations.delete_one({"_id": conversation_id, "status": "deleted"})

    async def _remove_if_deleted(self, conversation_ids: Sequence[str]) -> None:
        async with self._mongo.guard("conversations.find_deleted"):
            rows = self._conversations.find({"_id": {"$in": list(conversation_ids)}}, {"status": 1})
            living = {row["_id"] async for row in rows if row["status"] != "deleted"}
        for conversation_id in conversation_ids:
            if conversation_id not in living:
                await self._remove_messages(conversation_id)

    async def _remove_messages(self, conversation_id: str) -> None:
        async with self._mongo.guard("messages.delete"):
            await self._messages.delete_many({"conversation_id": conversation_id})

    def _now(self) -> datetime:
        return to_the_millisecond(self._clock.now())
