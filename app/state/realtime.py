"""Event streams: what happened in a channel, in order, for whoever listens through whichever replica.

    await kit.realtime.append(RUN.of(tenant_id, run_id), "delta", b'{"text":"…"}', epoch=run.epoch)

    async with kit.realtime.subscribe(RUN.of(tenant_id, run_id), since=last_event_id) as events:
        if not events.recovered: …            # read the state from the record, then go on
        async for event in events: …          # SubscriptionEndedError tells why it stopped

Guarantees
- Events of a channel have one order and numbers without gaps. A subscription gets each of them once and in
  order, from the position it asked for, through any replica, however publishing, reconnecting and trimming
  interleave; or it is told that some are missing: `recovered` false at its start, the end `gap` later. Never
  in silence, not even after Redis lost its data (`channels` says how ids make that possible).
- An append with an epoch lower than the highest the channel has seen is refused: a run's former owner writes
  nothing after its successor's first append, or `fence`.
- An append with an `event_id` that the stream still holds changes nothing and returns the first one's id. So
  what timed out can be repeated, by anybody.
- Memory is bounded: a stream by its kind's length, gone `ttl_s` after the last append; a live consumer by its
  queue, beyond which it is cut (`subscriptions`).
- One connection a process listens for all of its subscriptions (`listener`); thousands of channels cost
  memory, not connections.

Does not guarantee: that an event is kept for longer than its stream, or at all when Redis loses its data. It
is a row of the change that caused it, in MongoDB, and published again from there. Nor that a lower epoch is
refused between a loss of Redis' data and the next append with the higher one: the record is guarded in
MongoDB. A producer that is handed another number than its last one plus one knows that others appended or
that the stream began anew.

When Redis is gone: `append`, `fence`, `read` and new subscriptions raise StoreUnavailableError; running ones
raise it once from `next` and go on without a gap when Redis is back, for which nobody has to come back to the
same replica. MongoDB is not involved.

Keys: `keys.stream`, `keys.stream_guard`. An append is one script, O(1), with a tenth of the stream trimmed
now and then; a published event costs each process that follows the channel one message. Source: "subscribe,
then fetch, then replay", Zulip's events system; numbered messages to notice loss, as in TCP.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from app.core.clock import Clock
from app.core.errors import ConflictError, PayloadTooLargeError
from app.core.metrics import Metrics
from app.state import keys, realtime_lua
from app.state.channels import Channel, Event, is_event_id, is_event_type, position_of
from app.state.listener import Listener
from app.state.redis import RedisStore
from app.state.subscriptions import PAGE_MAX, QUEUE_MAX, Page, Subscription

EVENT_MAX_BYTES: Final = 64 * 1024
READ_AT_ONCE: Final = 16
"""Subscriptions of a process that read their stream at the same time. After an outage thousands want to; all
at once they would keep each other, and everybody else, waiting until calls time out.
"""


class StaleEpochError(ConflictError):
    """Another owner with a higher epoch has taken over: nothing was appended."""

    code, title = "stale_epoch", "Superseded"

    def __init__(self) -> None:
        """There is nothing to retry."""
        super().__init__("Somebody else has taken this over. Nothing was changed.")


@dataclass(frozen=True, slots=True)
class Appended:
    """Where an event landed. `repeated`: it was there already."""

    id: str
    repeated: bool

    @property
    def number(self) -> int:
        """Its number in the channel, from 1 without gaps."""
        return position_of(self.id)[1]


class Realtime:
    """Appends, reads and subscribes. One a process."""

    def __init__(self, *, redis: RedisStore, clock: Clock, metrics: Metrics) -> None:
        """`listen_forever` must run for subscriptions to begin."""
        self._redis = redis
        self._metrics = metrics
        self._listener = Listener(redis, clock)
        self._readers = asyncio.Semaphore(READ_AT_ONCE)

    async def listen_forever(self) -> None:
        """Listen for all subscriptions of this process. Runs in the kit's tasks."""
        await self._listener.listen_forever()

    async def append(
        self, channel: Channel, event_type: str, data: bytes, *, epoch: int = 0, event_id: str = ""
    ) -> Appended:
        """Add an event and publish it. `event_type` is a name from the code; `data` is JSON.

        A call that raised may still have appended: repeat it with the same `event_id` (of the caller's
        making). Raises StaleEpochError, StoreUnavailableError, PayloadTooLargeError beyond EVENT_MAX_BYTES.
        """
        if not is_event_type(event_type):
            raise ValueError(f"{event_type!r} can't be a type of events")
        if len(data) > EVENT_MAX_BYTES:
            raise PayloadTooLargeError(f"An event may have {EVENT_MAX_BYTES} bytes at most.")
        kind = channel.kind
        arguments = (epoch, event_id, event_type, data, kind.length_max, kind.ttl_s * 1000)
        outcome, landed = await self._redis.run(realtime_lua.APPEND, _names(channel), arguments)
        self._metrics.realtime(kind.name, outcome.decode())
        if outcome == b"refused":
            raise StaleEpochError
        return Appended(landed.decode(), repeated=outcome == b"repeated")

    async def fence(self, channel: Channel, *, epoch: int) -> str:
        """Refuse lower epochs from now on and return the id of the last event; none will come from them.

        For a successor that reads what its predecessor published before it goes on. Raises StaleEpochError,
        StoreUnavailableError.
        """
        arguments = (epoch, channel.kind.ttl_s * 1000)
        outcome, last_id = await self._redis.run(realtime_lua.FENCE, _names(channel), arguments)
        if outcome == b"refused":
            raise StaleEpochError
        position: str = last_id.decode()
        return position

    async def read(self, channel: Channel, since: str, *, limit: int = PAGE_MAX) -> Page:
        """Return up to `limit` events after `since` (START for all there are), without waiting for more.

        Raises StoreUnavailableError.
        """
        if since and not is_event_id(since):
            since = "0-1"  # no event has this id
        name = keys.stream(channel.tenant_id, channel.name)
        recovered, last_id, entries = await self._redis.run(realtime_lua.READ, (name,), (since, limit))
        events = [Event.from_entry(*entry) for entry in entries]
        if recovered != 1 or not since:
            return Page(recovered == 1, last_id.decode(), [])
        return Page(recovered=True, position=events[-1].id if events else since, events=events)

    @asynccontextmanager
    async def subscribe(
        self, channel: Channel, since: str = "", *, queue_max: int = QUEUE_MAX
    ) -> AsyncIterator[Subscription]:
        """Follow a channel for the length of the block, from the event after `since`, from the first one
        (START), or from now on (nothing).

        Whatever else is given for `since` is an id that is not known: `recovered` is false. Raises
        StoreUnavailableError.
        """
        name = keys.stream(channel.tenant_id, channel.name)

        async def read(position: str) -> Page:
            await self._listener.heard(name)
            async with self._readers:
                return await self.read(channel, position)

        subscription = Subscription(read=read, queue_max=queue_max)
        self._listener.follow(name, subscription)
        try:
            await subscription.start(since)
            outcome = "recovered" if subscription.recovered else "unrecovered"
            self._metrics.realtime(channel.kind.name, outcome)
            yield subscription
        finally:
            self._listener.leave(name, subscription)
            if subscription.end in {"slow", "gap"}:
                self._metrics.realtime(channel.kind.name, subscription.end)


def _names(channel: Channel) -> tuple[str, str]:
    return (
        keys.stream(channel.tenant_id, channel.name),
        keys.stream_guard(channel.tenant_id, channel.name),
    )
