"""What is to be done every so often: once a tick however many workers there are, with no leader.

A tick is a whole multiple of the period since 1970, so that every worker knows the same ones. Every worker
inserts each tick as it comes; the unique index on (name, tick) lets one of them. The row holds the job in its
outbox, so that a worker killed right after the insert has not lost it (see `jobs`).

Guarantees
- one job for each tick that any worker lives to see, and for each of the last `catch_up` ticks that nobody
  saw, as soon as somebody does; two jobs for none.
- with `overlap=False`, a tick whose predecessor's job is unfinished adds none.

Does not guarantee that ticks longer ago than `catch_up` periods are made up for, nor punctuality beyond how
soon a worker gets to it. A new schedule begins with the ticks that it would have caught up with.

Document in `schedule_ticks`: {_id, name, tick, due_at, outbox, expires_at}, kept for a day and twice the time
that can be caught up with. Cost: one insert a tick and worker, refused but for one. When MongoDB is gone, the
tick is caught up with later; Redis is not involved. Workers tell the time by a clock that follows MongoDB's.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo.errors import DuplicateKeyError, PyMongoError

from app.core.clock import Clock
from app.core.errors import StoreUnavailableError
from app.core.moments import timestamp
from app.state.job_documents import NewJob
from app.state.jobs import Jobs, ensure_outbox_index
from app.state.mongo import Document, MongoStore

_log = logging.getLogger(__name__)

COLLECTION = "schedule_ticks"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST_PAUSE_S = 1.0
_KEPT_AT_LEAST = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Scheduled:
    """One line of the cron table: a job of this type every `every_s` seconds, `offset_s` into the period.

    Periods begin at 1970-01-01T00:00:00Z: 86400 with an offset of 10800 is three o'clock UTC. The payload
    gets the moment of the tick as `tick`.
    """

    name: str
    every_s: int
    job_type: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    offset_s: int = 0
    catch_up: int = 1
    """How many ticks that nobody saw are made up for."""
    overlap: bool = False
    """Whether a tick adds its job though the one before is unfinished."""

    def __post_init__(self) -> None:
        if self.every_s < 1 or not 0 <= self.offset_s < self.every_s or self.catch_up < 0:
            raise ValueError(f"the schedule {self.name} can't be: {self}")

    def tick_at(self, now: datetime) -> int:
        """Return the number of the last tick that is not after `now`."""
        return (now - _EPOCH - timedelta(seconds=self.offset_s)) // timedelta(seconds=self.every_s)

    def due_at(self, tick: int) -> datetime:
        """Return the moment of a tick."""
        return _EPOCH + timedelta(seconds=tick * self.every_s + self.offset_s)


async def ensure_indexes(mongo: MongoStore) -> None:
    """Create what makes a tick one of a kind, and what finds outboxes. Safe while serving, and twice."""
    ticks = mongo.collection(COLLECTION)
    await ticks.create_index([("name", 1), ("tick", 1)], unique=True)
    await ticks.create_index("expires_at", expireAfterSeconds=0)
    await ensure_outbox_index(mongo, COLLECTION)


class Schedule:
    """Turns ticks into jobs. One a worker."""

    def __init__(self, *, mongo: MongoStore, jobs: Jobs, clock: Clock, table: Sequence[Scheduled]) -> None:
        """`clock` follows MongoDB's. Raises ValueError for two lines of one name."""
        if len({line.name for line in table}) != len(table):
            raise ValueError("two schedules have the same name")
        self._mongo = mongo
        self._jobs = jobs
        self._clock = clock
        self._table = table
        self._ticks = mongo.collection(COLLECTION)
        self._seen: dict[str, int] = {}
        """The last tick of each line that is known to be there. Saves inserts that would be refused."""

    async def tick_forever(self) -> None:
        """Insert ticks as they come. Runs in a worker's tasks."""
        while True:
            with suppress(StoreUnavailableError):
                try:
                    await self.tick()
                except PyMongoError as error:
                    _log.error("schedule_not_ticked", extra={"reason": str(error)})
            await asyncio.sleep(self._pause_s())

    async def tick(self) -> None:
        """Insert the ticks that have come and are not there, and enqueue their jobs.

        Raises StoreUnavailableError.
        """
        for line in self._table:
            current = line.tick_at(self._clock.now())
            first = max(current - line.catch_up, self._seen.get(line.name, -1) + 1)
            for tick in range(first, current + 1):
                await self._insert(line, tick)
                self._seen[line.name] = tick

    async def _insert(self, line: Scheduled, tick: int) -> None:
        due_at = line.due_at(tick)
        job = NewJob(
            line.job_type,
            {**line.payload, "tick": timestamp(due_at)},
            key=None if line.overlap else f"schedule:{line.name}",
        )
        kept = max(_KEPT_AT_LEAST, timedelta(seconds=2 * line.every_s * (line.catch_up + 1)))
        row: Document = {
            "_id": f"{line.name}:{tick}",
            "name": line.name,
            "tick": tick,
            "due_at": due_at,
            "outbox": self._jobs.outbox([job]),
            "expires_at": self._clock.now() + kept,
        }
        try:
            async with self._mongo.guard("schedule.insert"):
                await self._ticks.insert_one(row)
        except DuplicateKeyError:
            return
        _log.info("schedule_tick", extra={"schedule": line.name, "tick": timestamp(due_at)})
        with suppress(StoreUnavailableError):
            await self._jobs.relay(COLLECTION, row["_id"])

    def _pause_s(self) -> float:
        """Return how long until the next tick, and not too long: clocks move."""
        now = self._clock.now()
        next_s = [(line.due_at(line.tick_at(now) + 1) - now).total_seconds() for line in self._table]
        return min([_LONGEST_PAUSE_S, *next_s])
