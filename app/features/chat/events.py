"""A run as its client sees it: server-sent events, from any replica, resumable by id.

`delta` {text} adds to the answer; `snapshot` {text} replaces all that was received (after Redis lost data,
or for an id that is not known); `done` {message_id, text} and `error` (a problem) end the stream; `moved` {}
says that this replica leaves: come back with Last-Event-ID, to any other. A comment comes every HEARTBEAT_S.

Guarantees: deltas come once and in order, from the event after the given id; the text of `done` is what is
stored. However events get lost, how a run ended is read from MongoDB within POLL_S: no client hangs.

When Redis is gone there are no deltas, and `done` brings the whole text. When MongoDB is gone for longer than
MONGO_PATIENCE_S: `error`.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import orjson

from app.core.errors import CargoFlowError, StoreUnavailableError
from app.features.chat.answer_stream import RUN_CHANNEL
from app.features.chat.documents import Outcome, Run
from app.features.chat.errors import ModelError
from app.features.chat.run_work import problem_document
from app.features.chat.runs import Runs
from app.state.channels import START, Event
from app.state.kit import StateKit
from app.state.session_documents import Owner
from app.state.subscriptions import Subscription, SubscriptionEndedError

HEARTBEAT_S: Final = 15.0
POLL_S: Final = 2.0
"""Of silence, after which MongoDB is asked how the run stands."""
WITHOUT_REDIS_POLL_S: Final = 0.5
MONGO_PATIENCE_S: Final = 10.0
_PAGE: Final = 500


class RunEvents:
    """Follows one run for one client."""

    def __init__(
        self,
        kit: StateKit,
        runs: Runs,
        draining: asyncio.Event,
        *,
        owner: Owner,
        run_id: str,
        since: str,
        request_id: str,
    ) -> None:
        """`since` is the id of the last event the client has, or nothing."""
        self._kit = kit
        self._runs = runs
        self._draining = draining
        self._owner = owner
        self._run_id = run_id
        self._channel = RUN_CHANNEL.of(owner.tenant_id, run_id)
        self._since = since or START
        self._request_id = request_id
        self._outcome: Outcome | None = None
        self._has_moved = False
        self._silent_s = 0.0
        self._mongo_gone_s = 0.0

    async def stream(self, run: Run | Outcome) -> AsyncIterator[bytes]:
        """Yield the events as they are sent; `run` is what `find_run` returned.

        Raises nothing: what goes wrong is an `error` event.
        """
        yield b": \n\n"
        try:
            if isinstance(run, Run):
                await self._runs.take_over_if_left(run)
                async for chunk in self._follow():
                    yield chunk
            else:
                self._outcome = run
            if not self._has_moved and self._outcome is not None:
                async for chunk in self._rest():
                    yield chunk
                yield _last(self._outcome)
        except CargoFlowError as error:
            yield _encode("error", problem_document(error, self._request_id))

    async def _follow(self) -> AsyncIterator[bytes]:
        """Yield events until the run is over or this replica leaves."""
        while self._outcome is None:
            if self._draining.is_set():
                self._has_moved = True
                yield _encode("moved", {})
                return
            try:
                async with self._kit.realtime.subscribe(self._channel, since=self._since) as events:
                    if events.recovered:
                        async for chunk in self._take(events):
                            yield chunk
                    else:
                        yield _encode("snapshot", {"text": ""})
                        self._since = START
            except SubscriptionEndedError as ended:
                self._since = ended.position
            except StoreUnavailableError:
                await self._look()
                if beat := self._beat(WITHOUT_REDIS_POLL_S):
                    yield beat
                await asyncio.sleep(WITHOUT_REDIS_POLL_S)

    async def _take(self, events: Subscription) -> AsyncIterator[bytes]:
        """Yield what comes, until the run is over or this replica leaves."""
        leaving = asyncio.ensure_future(self._draining.wait())
        following: asyncio.Task[Event] | None = None
        try:
            while self._outcome is None and not leaving.done():
                following = following or asyncio.ensure_future(events.next())
                done, _ = await asyncio.wait(
                    {following, leaving}, timeout=POLL_S, return_when=asyncio.FIRST_COMPLETED
                )
                if following in done:
                    event, following = following.result(), None
                    self._since, self._silent_s = event.id, 0.0
                    if event.type == "end":
                        await self._look()
                    else:
                        yield _passed_on(event)
                elif not done:
                    await self._look()
                    if beat := self._beat(POLL_S):
                        yield beat
        finally:
            leaving.cancel()
            if following is not None:
                following.cancel()

    async def _look(self) -> None:
        """Ask MongoDB how the run stands, and take it over if nobody works on it.

        Raises NotFoundError if it was deleted, StoreUnavailableError if MongoDB is gone for too long.
        """
        try:
            found = await self._runs.store.find_run(self._owner, self._run_id)
            if isinstance(found, Outcome):
                self._outcome = found
            else:
                await self._runs.take_over_if_left(found)
            self._mongo_gone_s = 0.0
        except StoreUnavailableError:
            self._mongo_gone_s += POLL_S
            if self._mongo_gone_s > MONGO_PATIENCE_S:
                raise

    async def _rest(self) -> AsyncIterator[bytes]:
        """Yield what the stream still holds of a run that is over; `done` brings all of it anyway."""
        try:
            while True:
                page = await self._kit.realtime.read(self._channel, self._since, limit=_PAGE)
                if not page.recovered:
                    yield _encode("snapshot", {"text": ""})
                    if self._since == START:
                        return
                    self._since = START
                    continue
                for event in page.events:
                    if event.type != "end":
                        yield _passed_on(event)
                self._since = page.position
                if len(page.events) < _PAGE:
                    return
        except StoreUnavailableError:
            return

    def _beat(self, silent_s: float) -> bytes:
        self._silent_s += silent_s
        if self._silent_s < HEARTBEAT_S:
            return b""
        self._silent_s = 0.0
        return b": still here\n\n"


def _passed_on(event: Event) -> bytes:
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (event.id.encode(), event.type.encode(), event.data)


def _last(outcome: Outcome) -> bytes:
    if outcome.state == "failed":
        problem = outcome.problem or problem_document(ModelError("The answer failed."), "")
        return _encode("error", problem)
    return _encode("done", {"message_id": outcome.answer_id, "text": outcome.text})


def _encode(event_type: str, data: Mapping[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event_type.encode(), orjson.dumps(data))
