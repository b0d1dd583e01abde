"""Runs jobs in one worker: as many at a time as there is room for, and all of them finished or handed back.

The loop takes what there is room for and waits until something changes: a slot is free, jobs were added (the
index says so), a run-at moment has come, or IDLE_S is over. So an idle worker costs a round trip to Redis a
second, and a job waits for milliseconds.

A job that was under way when a worker died may have killed it. It is tried alone: the worker finishes what it
is at and takes nothing else until that job is over. One that kills its worker each time ends in the dead
letter by itself; its neighbours of the first time don't. If the worker can't get free within ALONE_WAIT_S,
another one may try: such a job waits for a worker whose other jobs are short.

Draining: nothing more is claimed; what runs may finish for a while, then it is cancelled and handed back,
which counts as no try.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta

from pymongo.errors import PyMongoError

from app.core.clock import Clock
from app.core.errors import StoreUnavailableError
from app.state.job_claims import JobClaims
from app.state.job_index import JobIndex
from app.state.job_run import GiveUpError, Handler, JobLostError, Run, check_result
from app.state.job_tally import JobTally
from app.state.mongo import Document

_log = logging.getLogger(__name__)

IDLE_S = 1.0
ALONE_WAIT_S = 10.0
_ALONE_AGAIN = timedelta(seconds=2)


class JobRunner:
    """Claims and runs jobs until told to stop."""

    def __init__(
        self,
        *,
        claims: JobClaims,
        index: JobIndex,
        tally: JobTally,
        clock: Clock,
        handlers: Mapping[str, Handler],
        concurrency: int,
    ) -> None:
        """`concurrency`: how many jobs at a time, of all types together."""
        self._claims = claims
        self._index = index
        self._tally = tally
        self._clock = clock
        self._handlers = handlers
        self._concurrency = concurrency
        self._running: dict[asyncio.Task[None], Run] = {}
        self._changed = asyncio.Event()
        self._suspects: deque[Document] = deque()
        """Jobs that may have killed a worker, which wait for this one to be free."""
        self._suspects_until_s = 0.0
        self._draining = False

    async def run(self, stop: asyncio.Event, *, drain_timeout_s: float) -> None:
        """Run jobs until `stop` is set, then drain. Returns when nothing runs any more."""
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(self._index.listen(self._changed.set)),
                tasks.create_task(self._tally.publish_forever()),
                tasks.create_task(self._notice(stop)),
            ]
            while not stop.is_set():
                self._changed.clear()
                patience_s = await self._start_what_there_is(tasks)
                with suppress(TimeoutError):
                    async with asyncio.timeout(patience_s):
                        await self._changed.wait()
            await self._drain(drain_timeout_s)
            for task in background:
                task.cancel()
        await self._tally.publish()

    async def _notice(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._changed.set()

    async def _start_what_there_is(self, tasks: asyncio.TaskGroup) -> float:
        """Claim and start jobs, and return how long to wait for something to change."""
        try:
            if self._suspects:
                return await self._try_suspect(tasks)
            room = self._room()
            if not room:
                return IDLE_S
            found = await self._claims.candidates(room, limit=self._concurrency - len(self._running))
            self._suspects.extend(row for row in found.rows if row["crashes"])
            self._suspects_until_s = self._clock.monotonic_s() + ALONE_WAIT_S
            await self._claim_and_start([row for row in found.rows if not row["crashes"]], tasks)
        except (StoreUnavailableError, PyMongoError) as error:
            _log.warning("jobs_not_taken", extra={"reason": str(error)})
            return IDLE_S
        if found.looked_at:
            return 0.0
        return IDLE_S if found.next_in_s is None else min(IDLE_S, found.next_in_s)

    def _room(self) -> dict[str, int]:
        """Return how many more of each type may run; empty if none at all."""
        if len(self._running) >= self._concurrency or any(run.job.crashes for run in self._running.values()):
            return {}
        busy = Counter(run.job.type for run in self._running.values())
        room = {name: handler.concurrency - busy[name] for name, handler in self._handlers.items()}
        return {name: free for name, free in room.items() if free > 0}

    async def _claim_and_start(self, rows: Sequence[Document], tasks: asyncio.TaskGroup) -> None:
        """Claim these jobs and start those that were got, also when MongoDB is lost in between."""
        claimed: list[tuple[Document, Run]] = []
        try:
            for row in rows:
                run = await self._claims.claim(row)
                if run is not None:
                    claimed.append((row, run))
        finally:
            await self._claims.claimed([row for row, _ in claimed])
            for _, run in claimed:
                task = tasks.create_task(self._execute(run))
                self._running[task] = run
                task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self._changed.set()

    async def _try_suspect(self, tasks: asyncio.TaskGroup) -> float:
        """Run a suspect if nothing else runs; leave them to others if that takes too long.

        Returns how long to wait for something to change.
        """
        if not self._running:
            await self._claim_and_start([self._suspects.popleft()], tasks)
            return 0.0
        left_s = self._suspects_until_s - self._clock.monotonic_s()
        if left_s <= 0 and not any(run.job.crashes for run in self._running.values()):
            await self._leave_suspects(delay=_ALONE_AGAIN)
            return 0.0
        return max(left_s, IDLE_S)

    async def _leave_suspects(self, *, delay: timedelta) -> None:
        while self._suspects:
            await self._claims.put_back(self._suspects.popleft(), delay=delay)

    async def _execute(self, run: Run) -> None:
        fields = {"job_id": run.job.id, "type": run.job.type, "epoch": run.job.epoch}
        started_s = self._clock.monotonic_s()
        try:
            async with run.kept():
                await self._try(run, fields)
        except JobLostError:
            run.outcome = run.outcome or "lost"
        except asyncio.CancelledError:
            if not self._draining:
                raise
            await run.hand_back()
        except Exception:  # noqa: BLE001  # the others must go on; this one's lease runs out
            _log.warning("job_not_settled", extra=fields, exc_info=True)
        finally:
            self._tally.took(run.job.type, self._clock.monotonic_s() - started_s)
        await self._finish(run, fields)

    async def _try(self, run: Run, fields: dict[str, object]) -> None:
        """Call the handler and record what comes of it."""
        limit = asyncio.timeout(run.handler.timeout_s)
        try:
            async with limit:
                result = check_result(await run.handler.run(run))
        except JobLostError:
            raise
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            await run.fail("error", _reason(error))  # it cancelled itself
        except GiveUpError as error:
            await run.fail("error", str(error), for_good=True)
        except TimeoutError as error:
            if limit.expired():
                await run.fail("timeout", f"It took longer than {run.handler.timeout_s:g} s.")
            else:
                await run.fail("error", _reason(error))
        except Exception as error:  # noqa: BLE001  # whatever is wrong with one job must not end the others
            _log.warning("job_try_failed", extra={**fields, "reason": _reason(error)}, exc_info=True)
            await run.fail("error", _reason(error))
        else:
            await run.complete(result)

    async def _drain(self, timeout_s: float) -> None:
        await self._leave_suspects(delay=timedelta())
        if self._running:
            await asyncio.wait(self._running, timeout=timeout_s)
        self._draining = True
        for task in self._running:
            task.cancel()

    async def _finish(self, run: Run, fields: dict[str, object]) -> None:
        outcome = run.outcome or "lost"
        self._tally.count(run.job.type, outcome)
        level = logging.INFO if outcome in {"completed", "handed_back"} else logging.WARNING
        _log.log(level, f"job_{outcome}", extra=fields)
        with suppress(StoreUnavailableError, PyMongoError):
            await self._claims.ended(run)


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
