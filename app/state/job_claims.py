"""How a worker gets jobs.

The index in Redis names candidates, MongoDB says how they stand. A claim is one update that names the epoch
it read and raises it, and it is refused unless the job still waits, is due and is not held.

When Redis is gone, candidates are found by `slice`, a number below SLICES that each waiting job has: one look
sees a thirty-second of them, best first, and looks go on until there are enough. So the loss of Redis costs
latency, never a job; `job_reconcile` puts the index right afterwards.
"""

import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from app.core.clock import Clock
from app.core.errors import StoreUnavailableError
from app.core.moments import to_milliseconds
from app.state import job_transitions as transitions
from app.state.job_documents import SLICES, WAITING, job_from
from app.state.job_index import INDEXED, JobIndex
from app.state.job_pauses import JobPauses
from app.state.job_run import Handler, Run
from app.state.mongo import Document, MongoStore, milliseconds
from app.state.transactions import Transactions

DUE_TOLERANCE = timedelta(milliseconds=100)
"""How far two processes may be apart in what they take MongoDB's time to be: `store_clock` allows 50 ms."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Rows that may be claimed, best first, of so many looked at; `next_in_s`: when more may be due (None:
    nobody knows).
    """

    rows: Sequence[Document]
    looked_at: int
    next_in_s: float | None


class JobClaims:
    """Finds and claims jobs for one worker."""

    def __init__(
        self,
        *,
        mongo: MongoStore,
        index: JobIndex,
        pauses: JobPauses,
        transactions: Transactions,
        clock: Clock,
        worker: str,
        handlers: Mapping[str, Handler],
    ) -> None:
        """`worker` is the process's name; `handlers` are by type; `clock` follows MongoDB's."""
        self._mongo = mongo
        self._index = index
        self._pauses = pauses
        self._transactions = transactions
        self._clock = clock
        self._worker = worker
        self._handlers = handlers
        self._rows = mongo.collection("jobs")

    async def candidates(self, room: Mapping[str, int], *, limit: int) -> Candidates:
        """Return at most `limit` jobs that are due, of each type at most as many as there is room for.

        They are this worker's to try for a while, but not its own. Raises StoreUnavailableError without
        MongoDB.
        """
        try:
            taken = await self._index.take(room, limit=limit, now_ms=self._now_ms())
        except StoreUnavailableError:
            rows = await self._look_through_slices(room, limit)
            return Candidates(await self._without_paused(rows), len(rows), None)
        rows = await self._without_paused(await self._load(taken.entries))
        return Candidates(rows, len(taken.entries), taken.next_in_s)

    async def claim(self, row: Document) -> Run | None:
        """Make a job that was read as `row` this worker's, or return None if somebody was faster."""
        handler = self._handlers[row["type"]]
        wanted = {
            "_id": row["_id"],
            "epoch": row["epoch"],
            "state": {"$in": WAITING},
            "held_by": None,
            "run_at": {"$lte": self._clock.now() + DUE_TOLERANCE},
        }
        epoch = row["epoch"] + 1
        changes = transitions.claimed(
            epoch=epoch,
            lease_ms=milliseconds(handler.lease_s),
            worker=self._worker,
        )
        asked_s = self._clock.monotonic_s()
        async with self._mongo.guard("jobs.claim"):
            result = await self._rows.update_one(wanted, [{"$set": changes}])
        if result.modified_count == 0:
            return None
        return Run(
            mongo=self._mongo,
            transactions=self._transactions,
            clock=self._clock,
            job=job_from({**row, "epoch": epoch, "state": "processing"}),
            handler=handler,
            asked_s=asked_s,
        )

    async def claimed(self, rows: Sequence[Document]) -> None:
        """Take jobs out of the index that are not waiting any more."""
        with suppress(StoreUnavailableError):
            await self._index.remove(rows)

    async def put_back(self, row: Document, *, delay: timedelta) -> None:
        """Have a candidate looked at again after `delay`, by anybody."""
        with suppress(StoreUnavailableError):
            await self._index.add([{**row, "run_at": self._clock.now() + delay}], now_ms=self._now_ms())

    async def ended(self, run: Run) -> None:
        """Index the job if it waits again."""
        if run.outcome in {"failed", "handed_back"}:
            with suppress(StoreUnavailableError):
                await self._index_again(run.job.id)

    async def _load(self, entries: Sequence[Document]) -> list[Document]:
        """Return the rows of what the index named, in its order; what does not wait is taken out of it."""
        if not entries:
            return []
        async with self._mongo.guard("jobs.find_candidates"):
            found = await self._rows.find({"_id": {"$in": [entry["_id"] for entry in entries]}}).to_list(None)
        by_id = {row["_id"]: row for row in found}
        due_until = self._clock.now() + DUE_TOLERANCE
        waiting, later, gone = [], [], []
        for entry in entries:
            row = by_id.get(entry["_id"])
            if row is None or "slice" not in row:
                gone.append(entry)
            elif row["run_at"] > due_until:
                later.append(row)
            else:
                waiting.append(row)
        with suppress(StoreUnavailableError):
            await self._index.remove(gone)
            await self._index.add(later, now_ms=self._now_ms())
        return waiting

    async def _look_through_slices(self, room: Mapping[str, int], limit: int) -> list[Document]:
        """Find due jobs without the index, in slices from a random one on until there are enough."""
        left = dict(room)
        rows: list[Document] = []
        first = random.randrange(SLICES)  # noqa: S311  # spreads workers, hides nothing
        for number in range(first, first + SLICES):
            due = {"slice": number % SLICES, "run_at": {"$lte": self._clock.now()}}
            async with self._mongo.guard("jobs.find_slice"):
                found = await self._rows.find(due).to_list(None)
            for row in sorted(found, key=lambda row: (-row["priority"], row["run_at"])):
                if len(rows) < limit and left.get(row["type"], 0) > 0:
                    left[row["type"]] -= 1
                    rows.append(row)
            if len(rows) >= limit:
                break
        return rows

    async def _without_paused(self, rows: list[Document]) -> list[Document]:
        if not rows:
            return rows
        paused = await self._pauses.active()
        held = [row for row in rows if (row["tenant_id"], row["type"]) in paused]
        for row in held:
            await self._pauses.hold(row, paused[row["tenant_id"], row["type"]])
        await self.claimed(held)
        return [row for row in rows if row not in held] if held else rows

    async def _index_again(self, job_id: str) -> None:
        async with self._mongo.guard("jobs.find_waiting"):
            row = await self._rows.find_one({"_id": job_id}, INDEXED)
        if row is not None and "slice" in row:
            await self._index.add([row], now_ms=self._now_ms())

    def _now_ms(self) -> int:
        return to_milliseconds(self._clock.now())
