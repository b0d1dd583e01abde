"""Channels for tests, and what tests do to them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from app.core.errors import StoreUnavailableError
from app.state.channels import Channel, ChannelKind, Event
from app.state.kit import StateKit
from app.state.subscriptions import Subscription

RUN = ChannelKind("test_run", length_max=1000, ttl_s=600)
SHORT = ChannelKind("test_short", length_max=10, ttl_s=600)
CHANNEL = RUN.of("ten_a", "run_1")


async def say(kit: StateKit, *words: str, channel: Channel = CHANNEL, epoch: int = 0) -> list[str]:
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


async def tell(kit: StateKit, word: str, channel: Channel) -> None:
    """Append a word once, however often it takes: a slow machine runs thousands into timeouts."""
    while True:
        with suppress(StoreUnavailableError):
            await kit.realtime.append(channel, "word", word.encode(), event_id=word)
            return


@asynccontextmanager
async def followed(kit: StateKit, channel: Channel) -> AsyncIterator[Subscription]:
    """Subscribe, however often it takes."""
    async with AsyncExitStack() as stack:
        while True:
            with suppress(StoreUnavailableError):
                events = await stack.enter_async_context(kit.realtime.subscribe(channel))
                break
            await asyncio.sleep(0.1)
        yield events


async def hear_through(events: Subscription, count: int, timeout_s: float = 40) -> list[str]:
    """Hear that many words, going on when told that Redis was gone."""
    heard: list[str] = []
    async with asyncio.timeout(timeout_s):
        while len(heard) < count:
            try:
                heard.append((await events.next()).data.decode())
            except StoreUnavailableError:
                await asyncio.sleep(0.05)
    return heard


def numbered(count: int, first: int = 0) -> list[str]:
    return [str(number) for number in range(first, first + count)]


def words_of(events: list[Event]) -> list[str]:
    return [event.data.decode() for event in events]
