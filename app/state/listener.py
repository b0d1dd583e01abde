"""The one connection of a process on which Redis tells what is published, for all who follow anything.

Guarantees: when `follow` has returned, whatever is published to that channel from then on is offered to the
subscription, in order, until `leave`; if the connection is lost or silent for SILENCE_MAX_S, every
subscription is told that it may have missed something. It is reconnected with back-off for as long as
somebody follows.

Does not guarantee that nothing is missed: `subscriptions` fills that in from the stream.

A subscription that has to be followed anew, thousands of them after a reconnect, is one command for
SUBSCRIBED_AT_ONCE channels. A message costs O(its subscribers). Outside of the pool and of every guard: it
blocks for as long as nothing happens.
"""

import asyncio
import logging
import math
import random
from collections.abc import Awaitable
from typing import Any, Final

import redis.asyncio
import redis.exceptions

from app.core.clock import Clock
from app.core.errors import StoreUnavailableError
from app.state.channels import Event
from app.state.redis import RedisStore
from app.state.subscriptions import Subscription

_log = logging.getLogger(__name__)

SUBSCRIBED_AT_ONCE: Final = 500
PING_INTERVAL_S: Final = 1.0
SILENCE_MAX_S: Final = 3.0
"""A connection on which not even a ping is answered for this long is given up."""
_TAKEN_AT_ONCE: Final = 32
"""Messages between two turns of the event loop; well below what a subscription's queue holds, so that one who
takes events at once is never cut for being slow.
"""
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 1.0


class _Feed:
    __slots__ = ("heard", "subscriptions")

    def __init__(self) -> None:
        self.subscriptions: set[Subscription] = set()
        self.heard = asyncio.Event()
        """Set while Redis is known to send us what is published."""


class Listener:
    """Follows channels by the names they are published under. One a process."""

    def __init__(self, redis: RedisStore, clock: Clock) -> None:
        """Connects when somebody follows something for the first time."""
        self._redis = redis
        self._clock = clock
        self._feeds: dict[str, _Feed] = {}
        self._asked: set[str] = set()
        """Channels that Redis was asked for on this connection, those in `_sent` with success."""
        self._sent: set[str] = set()
        self._unasked: set[str] = set()
        self._left: set[str] = set()
        self._changed = asyncio.Event()
        self._heard_s = 0.0
        self._lost = False

    @property
    def channels(self) -> int:
        """How many channels are followed."""
        return len(self._feeds)

    def follow(self, name: str, subscription: Subscription) -> None:
        """Offer what is published under `name` to the subscription; from when on, `heard` tells."""
        feed = self._feeds.get(name)
        if feed is None:
            feed = self._feeds[name] = _Feed()
            if name in self._sent:
                feed.heard.set()
            if name not in self._asked:
                self._unasked.add(name)
                self._changed.set()
        feed.subscriptions.add(subscription)

    def leave(self, name: str, subscription: Subscription) -> None:
        """Offer it nothing any more."""
        feed = self._feeds[name]
        feed.subscriptions.discard(subscription)
        if not feed.subscriptions:
            del self._feeds[name]
            self._unasked.discard(name)
            if name in self._asked:
                self._left.add(name)
                self._changed.set()

    async def heard(self, name: str) -> None:
        """Return once whatever is published under `name` arrives here. Raises StoreUnavailableError if that
        takes longer than Redis may be silent, or with the connection lost than a call to it may take.
        """
        try:
            async with asyncio.timeout(self._redis.timeout_s if self._lost else SILENCE_MAX_S):
                await self._feeds[name].heard.wait()
        except TimeoutError as error:
            raise StoreUnavailableError("Redis") from error

    async def listen_forever(self) -> None:
        """Listen while somebody follows something. Runs in the kit's tasks."""
        pause_s = _FIRST_PAUSE_S
        try:
            while True:
                while not self._feeds:
                    self._changed.clear()
                    await self._changed.wait()
                began_s = self._clock.monotonic_s()
                try:
                    await self._listen()
                except* (redis.exceptions.RedisError, OSError) as group:
                    _log.warning("listener_lost", extra={"reason": repr(group.exceptions[0])})
                if self._clock.monotonic_s() - began_s > _LONGEST_PAUSE_S:
                    pause_s = _FIRST_PAUSE_S
                await asyncio.sleep(random.uniform(pause_s / 2, pause_s))  # noqa: S311  # spreads replicas
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
        finally:
            for feed in self._feeds.values():
                for subscription in feed.subscriptions:
                    subscription.finish("closed")

    async def _listen(self) -> None:
        connection = self._redis.dedicated_connection()
        try:
            await self._in_time(connection.connect())  # type: ignore[no-untyped-call]
            self._heard_s = self._clock.monotonic_s()
            self._lost = False
            self._unasked.update(self._feeds)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._receive(connection))
                tasks.create_task(self._ask(connection))
        finally:
            self._lose()
            await connection.disconnect(nowait=True)

    def _lose(self) -> None:
        self._lost = True
        self._asked.clear()
        self._sent.clear()
        self._left.clear()
        for feed in self._feeds.values():
            feed.heard.clear()
            for subscription in feed.subscriptions:
                subscription.interrupt()

    async def _receive(self, connection: redis.asyncio.Connection) -> None:
        taken = 0
        while True:
            message = await connection.read_response(disable_decoding=True, timeout=math.inf)
            self._heard_s = self._clock.monotonic_s()
            if isinstance(message, list):
                self._take(message)
            taken += 1
            if taken % _TAKEN_AT_ONCE == 0:
                await asyncio.sleep(0)

    def _take(self, message: list[Any]) -> None:
        kind, name = message[0], message[1].decode()
        feed = self._feeds.get(name)
        if kind == b"subscribe":
            self._sent.add(name)
            if feed is not None:
                feed.heard.set()
            else:
                self._changed.set()
        elif kind == b"message" and feed is not None:
            try:
                event = Event.from_message(message[2])
            except ValueError:  # not ours; the stream says what was really appended
                _log.exception("message_unreadable", extra={"channel": name})
                return
            for subscription in feed.subscriptions:
                subscription.offer(event)

    async def _ask(self, connection: redis.asyncio.Connection) -> None:
        """Ask for channels as they are followed and left, and for a sign of life in between.

        A channel is only given up once Redis has confirmed it, so that no confirmation is ever taken for that
        of a later question.
        """
        while True:
            self._changed.clear()
            while self._unasked:
                names = [self._unasked.pop() for _ in range(min(SUBSCRIBED_AT_ONCE, len(self._unasked)))]
                self._asked.update(names)
                await self._in_time(connection.send_command("SUBSCRIBE", *names))
            gone = [name for name in self._left & self._sent if name not in self._feeds]
            self._left -= self._sent
            if gone:
                self._asked.difference_update(gone)
                self._sent.difference_update(gone)
                await self._in_time(connection.send_command("UNSUBSCRIBE", *gone))
            try:
                async with asyncio.timeout(PING_INTERVAL_S):
                    await self._changed.wait()
            except TimeoutError:
                await self._in_time(connection.send_command("PING"))
            if self._clock.monotonic_s() - self._heard_s > SILENCE_MAX_S:
                raise TimeoutError("Redis is silent")

    async def _in_time(self, call: Awaitable[None]) -> None:
        async with asyncio.timeout(self._redis.timeout_s):
            await call
