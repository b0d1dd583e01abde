"""Puts into the index what waits and is not there: the slow way to a job that is never lost.

Every worker looks at SLICES_A_LOOK of the SLICES each RECONCILE_S, for what a process left that died between
insert and index, or could not reach Redis: it is found within SLICES / SLICES_A_LOOK seconds. An emptied
Redis lacks the index's marker: then all slices are put in at once, and claims go on with what is there
already. For 100,000 jobs that took 22 s on the local cluster's engine, with others at work on two cores.
"""

import asyncio
import logging
import random

from pymongo.errors import PyMongoError

from app.core.clock import Clock
from app.core.errors import StoreUnavailableError
from app.core.moments import to_milliseconds
from app.state.job_documents import SLICES
from app.state.job_index import INDEXED, JobIndex
from app.state.mongo import MongoStore

_log = logging.getLogger(__name__)

RECONCILE_S = 1.0
SLICES_A_LOOK = 2
_INDEXED_AT_ONCE = 500


class JobReconciler:
    """Compares record and index. One a worker."""

    def __init__(self, *, mongo: MongoStore, index: JobIndex, clock: Clock) -> None:
        """`clock` follows MongoDB's."""
        self._index = index
        self._mongo = mongo
        self._clock = clock
        self._rows = mongo.collection("jobs")
        self._next_slice = random.randrange(SLICES)  # noqa: S311  # spreads workers, hides nothing

    async def reconcile_forever(self) -> None:
        """Every RECONCILE_S, index some of what waits and is not in the index. Runs in a worker's tasks."""
        while True:
            await asyncio.sleep(RECONCILE_S * random.uniform(0.75, 1.25))  # noqa: S311  # spreads workers
            try:
                await self.reconcile()
            except StoreUnavailableError:
                continue
            except PyMongoError as error:
                _log.error("jobs_not_reconciled", extra={"reason": str(error)})

    async def reconcile(self) -> None:
        """Walk on, or rebuild the index if Redis was emptied. Raises StoreUnavailableError."""
        if await self._index.is_whole():
            await self.walk()
        else:
            await self.rebuild()

    async def walk(self) -> None:
        """Index what waits in the next slices and is not in the index. Raises StoreUnavailableError."""
        for _ in range(SLICES_A_LOOK):
            await self._index_slice(self._next_slice)
            self._next_slice = (self._next_slice + 1) % SLICES

    async def rebuild(self) -> None:
        """Index everything that waits, after Redis was emptied. Raises StoreUnavailableError."""
        _log.warning("job_index_rebuilding")
        for number in range(SLICES):
            await self._index_slice(number)
        await self._index.mark_whole()

    async def _index_slice(self, number: int) -> None:
        cursor = self._rows.find({"slice": number}, INDEXED)
        while True:
            async with self._mongo.guard("jobs.walk"):
                rows = await cursor.to_list(_INDEXED_AT_ONCE)
            if not rows:
                return
            await self._index.add(rows, now_ms=to_milliseconds(self._clock.now()), only_new=True)
