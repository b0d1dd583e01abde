"""What a handler has in hand: the job, the lease it keeps up, and a commit that needs both.

`app.state.jobs` says what is guaranteed. A handler declares itself with `Handler`, in the `jobs.py` of its
feature, and is given a `Run`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeVar

import bson
from pymongo.errors import PyMongoError

from app.core.clock import Clock
from app.core.errors import ConflictError, StoreUnavailableError
from app.state import job_transitions as transitions
from app.state.held_lock import RENEW_SHARE, SAFETY_SHARE
from app.state.job_documents import Job, backoff, check_type
from app.state.mongo import ClientSession, Document, MongoStore, milliseconds
from app.state.transactions import OutcomeUnknownError, Transactions, Work

T = TypeVar("T")
_RETRY_SHARE = 1 / 20
"""Of the lease, between tries to reach a MongoDB that is gone."""
RESULT_MAX_BYTES = 64 * 1024

Outcome = Literal["completed", "failed", "dead", "handed_back", "lost"]


class JobLostError(ConflictError):
    """The lease was not kept: somebody else has the job, or will have it. Nothing was committed."""

    code, title = "job_lost", "Job lost"

    def __init__(self) -> None:
        """Only ever seen by handlers, and in logs."""
        super().__init__("The lease on this job is over. What was not committed is not.")


class GiveUpError(Exception):
    """Raised by a handler for which trying again is of no use: the job is dead at once."""


@dataclass(frozen=True, slots=True)
class Handler:
    """How jobs of one type are done.

    `run` may be called more than once for a job, with a worker's death in between: it commits its effect by
    `Run.commit`, or is idempotent by `Run.job.id`. What it returns is kept as the job's result, so it is
    small. What it raises fails this try, but for GiveUpError, which ends all.
    """

    type: str
    run: "Callable[[Run], Awaitable[Mapping[str, Any] | None]]"
    attempts_max: int = 8
    """Tries that end in an error or a timeout, before the job is dead."""
    crashes_max: int = 5
    """Tries that end with their worker's death or a lost lease, before the job is dead."""
    lease_s: float = 15.0
    """How long a dead worker's job stays with it. Renewed while the handler runs, by the event loop: what
    blocks the loop for longer loses the job.
    """
    timeout_s: float = 60.0
    concurrency: int = 4
    """Of this type, in one worker."""
    backoff_first_s: float = 5.0
    backoff_longest_s: float = 900.0

    def __post_init__(self) -> None:
        check_type(self.type)

    def next_try(self, tries: int) -> timedelta:
        """Return how long to wait after that many tries in vain."""
        return backoff(tries, first_s=self.backoff_first_s, longest_s=self.backoff_longest_s)


def check_result(result: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return what is to be kept of a job. Raises ValueError, or what BSON raises, for what can't be."""
    size = 0 if result is None else len(bson.encode(result))
    if size > RESULT_MAX_BYTES:
        raise ValueError(f"a result may have {RESULT_MAX_BYTES} bytes, and this one has {size}")
    return result


class Run:
    """One try of one job. Made by a claim, of no use once `outcome` is set."""

    def __init__(
        self,
        *,
        mongo: MongoStore,
        transactions: Transactions,
        clock: Clock,
        job: Job,
        handler: Handler,
        asked_s: float,
    ) -> None:
        """`asked_s` is when the lease was asked for, in the clock's monotonic seconds."""
        self.job = job
        """As claimed: its epoch is this try's."""
        self.handler = handler
        self.outcome: Outcome | None = None
        self._mongo = mongo
        self._transactions = transactions
        self._clock = clock
        self._rows = mongo.collection("jobs")
        self._row: Document = {"_id": job.id, "epoch": job.epoch, "state": "processing"}
        self._ends_s = asked_s + handler.lease_s * (1 - SAFETY_SHARE)
        self._block: asyncio.Timeout | None = None
        self._turn = asyncio.Lock()
        """Renewals and the commit of one run would conflict with each other: one at a time."""
        self._committing = False
        """Whether a commit was begun and it is not known to be over: then the lease has to run out."""

    async def commit(self, work: Work[T], *, result: Mapping[str, Any] | None = None) -> T:
        """Run `work` in the transaction that completes the job: both happen, once, or neither.

        The completion is a statement of the transaction: it finds epoch and lease as they should be on
        MongoDB's clock, or nothing is written. The handler should return after it. Raises JobLostError, or
        what `work` raises, with nothing written; ConflictError if others keep changing the same documents;
        StoreUnavailableError, of which OutcomeUnknownError says that it may have been committed: the lease
        runs out then, and the job is found completed or is tried again. Lasts as long as `Transactions.run`,
        and no renewal is made meanwhile.
        """
        completion = transitions.completed(check_result(result))

        async def work_and_complete(session: ClientSession) -> T:
            value = await work(session)
            if not await self._change(completion, session=session):
                raise JobLostError
            return value

        async with self._turn:
            if self.outcome is not None or self._committing or self._remaining_s() <= 0:
                raise JobLostError
            self._committing = True
            try:
                value = await self._transactions.run(work_and_complete)
            except (OutcomeUnknownError, asyncio.CancelledError):
                raise  # it may have happened, or happen yet
            except BaseException:
                self._committing = False
                raise
            self.outcome = "completed"
            return value

    async def complete(self, result: Mapping[str, Any] | None) -> None:
        """Record that it is done."""
        await self._settle("completed", transitions.completed(result))

    async def fail(self, kind: Literal["error", "timeout"], message: str, *, for_good: bool = False) -> None:
        """Record an error, and when to try again; or that it is given up."""
        tries = self.job.attempts + 1
        if for_good or tries >= self.handler.attempts_max:
            await self._settle("dead", transitions.dead(kind, message))
        else:
            run_at = self._clock.now() + self.handler.next_try(tries)
            await self._settle("failed", transitions.failed(kind, message, run_at=run_at))

    async def hand_back(self) -> None:
        """Let another worker have it at once, without counting this try."""
        await self._settle("handed_back", transitions.handed_back(run_at=self._clock.now()))

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Renew the lease during the block and cancel it when that fails; raises JobLostError then."""
        block = asyncio.timeout(self._remaining_s())
        try:
            async with asyncio.TaskGroup() as tasks:
                renewals = tasks.create_task(self._renew_forever())
                try:
                    async with block:
                        self._block = block
                        yield
                finally:
                    self._block = None
                    renewals.cancel()
        except BaseExceptionGroup as group:
            error = group.exceptions[0]  # the block's own: renewals end without one
            if isinstance(error, TimeoutError) and block.expired():
                raise JobLostError from error
            raise error from error.__cause__

    async def _settle(self, outcome: Outcome, changes: Document) -> None:
        """Record the end of this try, for as long as it takes to reach MongoDB within the lease.

        Does nothing after `commit`, or when it is not known whether that went through.
        """
        if self.outcome is not None or self._committing:
            return
        while self._remaining_s() > 0:
            try:
                async with self._turn, self._mongo.guard("jobs.settle"):
                    self.outcome = outcome if await self._change(changes) else "lost"
            except (StoreUnavailableError, PyMongoError):
                await asyncio.sleep(self.handler.lease_s * _RETRY_SHARE)
            else:
                return
        self.outcome = "lost"

    async def _renew_forever(self) -> None:
        pause_s = self.handler.lease_s * RENEW_SHARE
        while True:
            await asyncio.sleep(pause_s)
            async with self._turn:
                if self.outcome is not None:
                    return
                try:
                    if not await self._renew():
                        return
                    pause_s = self.handler.lease_s * RENEW_SHARE
                except (StoreUnavailableError, PyMongoError):
                    pause_s = self.handler.lease_s * _RETRY_SHARE

    async def _renew(self) -> bool:
        """Move the lease's end on; one that is over, or another's, ends the block at once."""
        asked_s = self._clock.monotonic_s()
        async with self._mongo.guard("jobs.renew"):
            held = await self._change(transitions.renewed(milliseconds(self.handler.lease_s)))
        self._prolong(asked_s if held else asked_s - self.handler.lease_s)
        return held

    async def _change(self, changes: Document, *, session: ClientSession = None) -> bool:
        """Make these changes if the job is still this run's, its lease not over, and say whether it was."""
        pipeline = transitions.guarded(transitions.LEASE_RUNS, changes)
        result = await self._rows.update_one(self._row, pipeline, session=session)
        return result.modified_count == 1

    def _prolong(self, asked_s: float) -> None:
        self._ends_s = asked_s + self.handler.lease_s * (1 - SAFETY_SHARE)
        if self._block is not None and not self._block.expired():
            self._block.reschedule(asyncio.get_running_loop().time() + self._remaining_s())

    def _remaining_s(self) -> float:
        return self._ends_s - self._clock.monotonic_s()
