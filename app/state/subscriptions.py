"""One consumer's view of a channel: every event after a position, in order, once, or an explicit end.

Two sources make it up. While the consumer is *behind*, it reads pages of the stream at its own pace. Once a
page has brought it up to date and nothing was published meanwhile, it is *live*: the listener puts events
into its bounded queue as they are published. Numbers without gaps hold the two together: whatever does not
follow the last event puts the consumer behind again, and the stream says what was missing, or that it can't
any more. So it does not matter what publishing lost, doubled or delayed.

A consumer that is live and does not take events for QUEUE_MAX of them is cut: nobody waits for it, and nobody
else notices. One that is behind takes up no more memory than a page.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Literal, Self, TypeAlias

from app.core.errors import StoreUnavailableError
from app.state.channels import START, Event, position_of

QUEUE_MAX: Final = 256
PAGE_MAX: Final = 128
"""Events read from the stream at once."""

EndReason: TypeAlias = Literal["slow", "gap", "closed"]


@dataclass(frozen=True, slots=True)
class Page:
    """Events read from a stream. Not `recovered`: some that came before are missing, and `position` is where
    the stream stands now; else it is that of the last event, or where the page began.
    """

    recovered: bool
    position: str
    events: list[Event]


class SubscriptionEndedError(Exception):
    """The subscription is over; a new one since `position` goes on where it stopped.

    `slow`: events came faster than they were taken. `gap`: events are missing that no store holds any more;
    a new subscription says `recovered` false. `closed`: this process ends.
    """

    def __init__(self, reason: EndReason, position: str) -> None:
        """`position` is the id of the last event that was handed out."""
        super().__init__(f"the subscription ended: {reason}")
        self.reason = reason
        self.position = position


ReadPage: TypeAlias = Callable[[str], Awaitable[Page]]


class Subscription:
    """Made by `Realtime.subscribe`. One task takes its events.

    `recovered`: whether nothing is missing since the position that was asked for. If not, events are those
    from now on. `position`: the id of the last event taken; a new subscription since that misses nothing.
    """

    def __init__(self, *, read: ReadPage, queue_max: int) -> None:
        """`read` returns the page after an id, once it is certain that what is published later arrives."""
        self.recovered = False
        self.position = START
        self.end: EndReason | None = None
        self._read = read
        self._queue_max = queue_max
        self._queue: deque[Event] = deque()
        self._page_began = self._tail = START
        self._behind = True
        self._missed = False
        self._interrupted = False
        self._news = asyncio.Event()

    async def start(self, since: str) -> None:
        """Take position after the event `since`; nothing for now. Raises StoreUnavailableError."""
        page = await self._read_page(since)
        self.recovered = page.recovered
        if since == "" or not page.recovered:
            self.position = self._page_began = self._tail = page.position
            self._behind = self._missed
        else:
            self.position = since
            self._take(since, page)

    async def next(self) -> Event:
        """Return the next event, waiting for it. Can be cancelled and called again without losing one.

        Raises SubscriptionEndedError when it is over, and StoreUnavailableError when Redis is gone: once for
        each interruption, after which calling again waits until Redis is back and goes on without a gap.
        """
        while not self._queue:
            if self.end is not None:
                raise SubscriptionEndedError(self.end, self.position)
            if self._interrupted:
                self._interrupted = False
                raise StoreUnavailableError("Redis")
            if self._behind:
                await self._catch_up()
            else:
                self._news.clear()
                await self._news.wait()
        event = self._queue.popleft()
        self.position = event.id
        return event

    def __aiter__(self) -> Self:
        """Iterate with `next`."""
        return self

    async def __anext__(self) -> Event:
        """Return the next event; see `next` for what it raises."""
        return await self.next()

    def offer(self, event: Event) -> None:
        """Take an event that was published just now. Never waits."""
        position, tail = event.position, position_of(self._tail)
        if self._behind or self.end is not None:
            self._missed = True
        elif position > tail and position[1] == tail[1] + 1:
            if len(self._queue) >= self._queue_max:
                self.finish("slow")
                return
            self._queue.append(event)
            self._tail = event.id
            self._news.set()
        elif not position_of(self._page_began) <= position <= tail:  # else the page had it already
            self._behind = True
            self._news.set()

    def interrupt(self) -> None:
        """Events may have been published that were not heard here."""
        self._behind = self._missed = self._interrupted = True
        self._news.set()

    def finish(self, reason: EndReason) -> None:
        """End it, for the first reason that is given; what was not taken is dropped."""
        self.end = self.end or reason
        self._queue.clear()
        self._news.set()

    async def _catch_up(self) -> None:
        since = self._tail
        page = await self._read_page(since)
        if page.recovered:
            self._take(since, page)
        else:
            self.finish("gap")

    async def _read_page(self, since: str) -> Page:
        self._missed = False
        return await self._read(since)

    def _take(self, since: str, page: Page) -> None:
        self._queue.extend(page.events)
        self._page_began, self._tail = since, page.position
        self._behind = self._missed or len(page.events) == PAGE_MAX
