"""The text of an answer on its way into the run's stream, and what of it can be read there.

Events of a run's channel: `delta` {text} adds to the answer, `snapshot` {text} replaces all of it (only
after Redis lost data), `end` {} says that MongoDB knows how the run ended.

Guarantees: the deltas of a run, in order, are its answer, whoever appended them: `AnswerStream` appends
one at a time, repeats what timed out under the same id, and stops at the first append that a successor's
epoch refuses. `shown` fences the stream first, so what it returns is all that anybody was ever shown.

When Redis is gone, text waits here and the run goes on; what never got out is in the stored answer.

Does not wait for the stream while text comes: what comes during an append leaves with the next one.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import orjson

from app.core.errors import StoreUnavailableError
from app.features.chat.documents import Run
from app.state.channels import START, Channel, ChannelKind, position_of
from app.state.realtime import Realtime

ANSWER_MAX_CHARACTERS: Final = 16_000
RUN_CHANNEL: Final = ChannelKind("run", length_max=ANSWER_MAX_CHARACTERS + 100, ttl_s=900)
"""Longer than an answer can be, by a character an event: a stream is never trimmed."""
_EVENT_MAX_CHARACTERS: Final = 4_000
_PAUSE_S: Final = 0.2
_PAGE: Final = 1_000


def channel_of(run: Run) -> Channel:
    """Return the channel of a run."""
    return RUN_CHANNEL.of(run.owner.tenant_id, run.id)


@dataclass(frozen=True, slots=True)
class Shown:
    """What is in a run's stream. `text` is None if its beginning is missing; `events` counts all."""

    text: str | None
    events: int


async def shown(realtime: Realtime, run: Run) -> Shown:
    """Let nobody with a lower epoch append any more, and return what was shown until then.

    Raises StaleEpochError, StoreUnavailableError.
    """
    channel = channel_of(run)
    last = await realtime.fence(channel, epoch=run.epoch)
    text, position = "", START
    while True:
        page = await realtime.read(channel, position, limit=_PAGE)
        if not page.recovered:
            return Shown(None, position_of(last)[1])
        for event in page.events:
            if event.type == "delta":
                text += orjson.loads(event.data)["text"]
            elif event.type == "snapshot":
                text = orjson.loads(event.data)["text"]
        position = page.position
        if len(page.events) < _PAGE:
            return Shown(text, position_of(position)[1])


class AnswerStream:
    """Takes an answer piece by piece. `pump` must run until the end."""

    def __init__(self, realtime: Realtime, run: Run, *, text: str = "", events: int = 0) -> None:
        """`text` is what was shown already, in `events` events."""
        self.text = text
        """All of the answer so far, whether it got out or not."""
        self._realtime = realtime
        self._channel = channel_of(run)
        self._epoch = run.epoch
        self._out = len(text)
        self._events = events
        self._appended = 0
        self._snapshot_due = False
        self._news = asyncio.Event()
        self._is_out = asyncio.Event()
        self._is_out.set()

    def write(self, piece: str) -> None:
        """Add to the answer. Never waits."""
        if piece:
            self.text += piece
            self._is_out.clear()
            self._news.set()

    def replace(self, text: str) -> None:
        """Put another text in the place of all that was shown."""
        self.text, self._snapshot_due = text, True
        self._is_out.clear()
        self._news.set()

    async def pump(self) -> None:
        """Append what is written, for ever. Raises StaleEpochError when a successor is there."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._snapshot_due or self._out < len(self.text):
                await self._append_next()
            self._is_out.set()

    async def flush(self, patience_s: float) -> None:
        """Return when all is out, or after that long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await self._is_out.wait()

    async def end(self) -> None:
        """Tell whoever follows that the run is over; if that fails, they find out by themselves."""
        with suppress(StoreUnavailableError):
            await self._append("end", b"{}")

    async def _append_next(self) -> None:
        if self._snapshot_due:
            text = self.text
            await self._append_until_taken("snapshot", text)
            self._snapshot_due, self._out = False, len(text)
        else:
            piece = self.text[self._out : self._out + _EVENT_MAX_CHARACTERS]
            await self._append_until_taken("delta", piece)
            self._out += len(piece)

    async def _append_until_taken(self, event_type: str, text: str) -> None:
        data = orjson.dumps({"text": text})
        self._appended += 1
        while True:
            try:
                await self._append(event_type, data)
            except StoreUnavailableError:
                await asyncio.sleep(_PAUSE_S)
            else:
                return

    async def _append(self, event_type: str, data: bytes) -> None:
        mark = f"{self._epoch}.{self._appended}.{event_type}"
        landed = await self._realtime.append(
            self._channel, event_type, data, epoch=self._epoch, event_id=mark
        )
        self._events += 1
        if landed.number != self._events:  # the stream began anew: Redis lost what was in it
            self._events = landed.number
            self._snapshot_due = event_type == "delta"
