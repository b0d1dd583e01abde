"""What became of jobs, counted by workers and shown by replicas.

A worker adds up in memory and adds that to one hash in Redis every PUBLISH_S. A replica reads the hash and
the lengths of the queues every LOOK_S and hands them to its metrics: a scrape asks no store. A killed worker
takes at most PUBLISH_S of counts with it; a wiped Redis starts at zero, which Prometheus expects of counters.
Nothing but metrics depends on any of this.

Hash `cf:jobs:tally`: fields `type|outcome|…` count tries, `type|bucket|N` and `type|sum` are a histogram of
seconds. No TTL; bounded by the types there are.
"""

import asyncio
from bisect import bisect_left
from collections import Counter
from contextlib import suppress
from typing import Any

from app.core.clock import Clock
from app.core.errors import StoreUnavailableError
from app.core.job_metrics import JOB_BUCKETS_S, JobFigures
from app.core.metrics import Metrics
from app.core.moments import to_milliseconds
from app.state import keys
from app.state.job_index import JobIndex
from app.state.redis import RedisStore, Script

PUBLISH_S = 1.0
LOOK_S = 5.0

_PUBLISH = Script(
    "jobs.tally_add",
    "for i = 1, #ARGV, 2 do redis.call('HINCRBYFLOAT', KEYS[1], ARGV[i], ARGV[i + 1]) end",
)


class JobTally:
    """Counts, publishes, and looks. One a process."""

    def __init__(self, *, redis: RedisStore, index: JobIndex, clock: Clock, metrics: Metrics) -> None:
        """`metrics` is what `look` feeds; `clock` follows MongoDB's."""
        self._redis = redis
        self._index = index
        self._clock = clock
        self._metrics = metrics
        self._unpublished: Counter[str] = Counter()
        self._seconds: dict[str, float] = {}

    def count(self, job_type: str, outcome: str) -> None:
        """Count one try of a job by what became of it."""
        self._unpublished[f"{job_type}|outcome|{outcome}"] += 1

    def took(self, job_type: str, seconds: float) -> None:
        """Count how long a handler ran."""
        self._unpublished[f"{job_type}|bucket|{bisect_left(JOB_BUCKETS_S, seconds)}"] += 1
        self._seconds[f"{job_type}|sum"] = self._seconds.get(f"{job_type}|sum", 0.0) + seconds

    async def publish(self) -> None:
        """Add what was counted to the cluster's tally. Without Redis it is kept for the next time."""
        counts, seconds = self._unpublished, self._seconds
        if not counts:
            return
        self._unpublished, self._seconds = Counter(), {}
        arguments = [part for name, n in counts.items() for part in (name, str(n))]
        arguments += [part for name, sum_s in seconds.items() for part in (name, f"{sum_s:.6f}")]
        try:
            await self._redis.run(_PUBLISH, (keys.JOBS_TALLY,), arguments)
        except StoreUnavailableError:
            self._unpublished += counts
            for name, sum_s in seconds.items():
                self._seconds[name] = self._seconds.get(name, 0.0) + sum_s

    async def publish_forever(self) -> None:
        """Publish every PUBLISH_S. Runs in a worker's tasks."""
        while True:
            await asyncio.sleep(PUBLISH_S)
            await self.publish()

    async def look(self) -> None:
        """Hand the cluster's figures to the metrics. Raises StoreUnavailableError."""
        depths = await self._index.depths(now_ms=to_milliseconds(self._clock.now()))
        async with self._redis.guard("jobs.tally_read"):
            found: Any = await self._redis.client.hgetall(keys.JOBS_TALLY)
        outcomes: dict[tuple[str, str], int] = {}
        durations: dict[str, list[float]] = {}
        for name, value in found.items():
            job_type, kind, *rest = name.decode().split("|")
            if kind == "outcome":
                outcomes[job_type, rest[0]] = round(float(value))
            else:
                row = durations.setdefault(job_type, [0.0] * (len(JOB_BUCKETS_S) + 2))
                row[-1 if kind == "sum" else int(rest[0])] = float(value)
        self._metrics.jobs(
            JobFigures(
                seen_s=self._clock.monotonic_s(),
                ready={job_type: depth.ready for job_type, depth in depths.items()},
                later={job_type: depth.later for job_type, depth in depths.items()},
                oldest_s={job_type: depth.oldest_s for job_type, depth in depths.items()},
                outcomes=outcomes,
                durations=durations,
            )
        )

    async def look_forever(self) -> None:
        """Look every LOOK_S. Runs in a replica's tasks."""
        while True:
            with suppress(StoreUnavailableError):  # the figures' age says so
                await self.look()
            await asyncio.sleep(LOOK_S)
