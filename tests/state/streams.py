"""Channels for tests, and what tests do to them."""

import asyncio
from collections.abc import Awaitable, Iterable

from app.state.channels import ChannelKind, Event
from app.state.kit import StateKit
from app.state.subscriptions import Subscription

RUN = ChannelKind("test_run", length_max=1000, ttl_s=600)
SHORT = ChannelKind("test_short", length_max=10, ttl_s=600)
CHANNEL = RUN.of("ten_a", "run_1")


async def say(kit: StateKit, *words: str, channel=CHANNEL, epoch: int = 0) -> list[str]:  # noqa: ANN001
    """Append one event a word and return their ids."""
    return [(await kit.realtime.append(channel, "word", word.encode(), epoch=epoch)).id for word in words]


async def hear(events: Subscription, count: int) -> list[str]:
    """Return the next words."""
    async with asyncio.timeout(20):
        return [(await events.next()).data.decode() for _ in range(count)]


async def nothing_more(events: Subscription) -> bool:
    """Whether no event comes for a moment."""
    try:
        async with asyncio.timeout(0.2):
            await events.next()
    except TimeoutError:
        return True
    return False


async def gather_some(calls: Iterable[Awaitable[object]], at_once: int = 40) -> None:
    """Await all of them, not more at once than a replica has connections."""
    gate = asyncio.Semaphore(at_once)

    async def through(call: Awaitable[object]) -> None:
        async with gate:
            await call

    await asyncio.gather(*(through(call) for call in calls))


def numbered(count: int, first: int = 0) -> list[str]:
    return [str(number) for number in range(first, first + count)]


def words_of(events: list[Event]) -> list[str]:
    return [event.data.decode() for event in events]
