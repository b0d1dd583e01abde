"""What an operator sees and does about the jobs of their tenant. Nobody else's exist here.

Counting and listing read the record in MongoDB, by indexes that begin with the tenant. On the local cluster's
engine both cost time with the number of jobs they match (about 30 ms a thousand).
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from pymongo.errors import DuplicateKeyError

from app.core.clock import Clock
from app.core.errors import NotFoundError, StoreUnavailableError
from app.core.moments import to_milliseconds
from app.state import job_transitions as transitions
from app.state.job_documents import (
    Job,
    JobNotRetryableError,
    JobState,
    JobSupersededError,
    job_from,
    unique_key,
)
from app.state.job_index import JobIndex
from app.state.mongo import Document, MongoStore, one_page

Retryable = Literal["failed", "dead"]
RETRIED_AT_ONCE = 200
"""By one call; each costs two short store calls."""

Counts = dict[JobState, int]


@dataclass(frozen=True, slots=True)
class QueueStats:
    """How many jobs of a tenant are in which state, in all and by type."""

    total: Counts
    by_type: Mapping[str, Counts]


class JobDesk:
    """Lists, counts and retries jobs. One a process."""

    def __init__(self, *, mongo: MongoStore, index: JobIndex, clock: Clock) -> None:
        """`clock` follows MongoDB's."""
        self._mongo = mongo
        self._index = index
        self._clock = clock
        self._rows = mongo.collection("jobs")

    async def page(
        self,
        *,
        tenant_id: str,
        job_type: str | None,
        state: JobState | None,
        before: tuple[datetime, str] | None,
        limit: int,
    ) -> list[Job]:
        """Return jobs of the tenant, newest first, from the one behind `before` on."""
        pipeline = one_page(_owned(tenant_id, job_type, state), order=-1, after=before, limit=limit)
        async with self._mongo.guard("jobs.page"):
            return [job_from(row) async for row in self._rows.aggregate(pipeline)]

    async def stats(self, *, tenant_id: str) -> QueueStats:
        """Count the tenant's jobs that are kept."""
        groups: list[Document] = [
            {"$match": {"tenant_id": tenant_id}},
            {"$group": {"_id": {"type": "$type", "state": "$state"}, "count": {"$sum": 1}}},
        ]
        async with self._mongo.guard("jobs.stats"):
            rows = [row async for row in self._rows.aggregate(groups)]
        total, by_type = _no_jobs(), dict[str, Counts]()
        for row in rows:
            job_type, state = row["_id"]["type"], row["_id"]["state"]
            total[state] += row["count"]
            by_type.setdefault(job_type, _no_jobs())[state] += row["count"]
        return QueueStats(total, dict(sorted(by_type.items())))

    async def retry(self, *, tenant_id: str, job_id: str) -> Job:
        """Have a failed or dead job tried at once, its counters back at zero and its history kept.

        Raises NotFoundError, JobNotRetryableError, JobSupersededError.
        """
        owned = {"_id": job_id, "tenant_id": tenant_id}
        while True:
            row = await self._find(owned)
            if row["state"] not in get_args(Retryable):
                raise JobNotRetryableError(row["state"])
            try:
                if await self._retry(row):
                    return job_from(await self._find(owned))
            except DuplicateKeyError:
                raise JobSupersededError from None

    async def retry_all(self, *, tenant_id: str, job_type: str | None, state: Retryable) -> tuple[int, bool]:
        """Do the same for RETRIED_AT_ONCE of the tenant's jobs at most, oldest first.

        Returns how many are tried anew, and whether there are more. Jobs whose key another unfinished job has
        stay what they are.
        """
        owned = _owned(tenant_id, job_type, state)
        pipeline = one_page(owned, order=1, after=None, limit=RETRIED_AT_ONCE + 1)
        async with self._mongo.guard("jobs.find_retryable"):
            rows = [row async for row in self._rows.aggregate(pipeline)]
        retried = 0
        for row in rows[:RETRIED_AT_ONCE]:
            with suppress(DuplicateKeyError):
                retried += await self._retry(row)
        return retried, len(rows) > RETRIED_AT_ONCE

    async def _find(self, owned: Document) -> Document:
        async with self._mongo.guard("jobs.find"):
            row: Document | None = await self._rows.find_one(owned)
        if row is None:
            raise NotFoundError
        return row

    async def _retry(self, row: Document) -> bool:
        """Retry the job as it was read; False if it has changed since."""
        now = self._clock.now()
        key = row["key"]
        changes = transitions.retried(
            run_at=now, unique_key=None if key is None else unique_key(row["tenant_id"], row["type"], key)
        )
        as_read = {name: row[name] for name in ("_id", "epoch", "state", "attempts", "crashes", "run_at")}
        async with self._mongo.guard("jobs.retry"):
            result = await self._rows.update_one(as_read, [{"$set": changes}])
        if result.modified_count == 0:
            return False
        with suppress(StoreUnavailableError):
            await self._index.add([{**row, "run_at": now}], now_ms=to_milliseconds(now))
        return True


def _owned(tenant_id: str, job_type: str | None, state: JobState | None) -> Document:
    named = {"type": job_type, "state": state}
    return {"tenant_id": tenant_id, **{name: value for name, value in named.items() if value is not None}}


def _no_jobs() -> Counts:
    states: Sequence[JobState] = get_args(JobState)
    return dict.fromkeys(states, 0)
