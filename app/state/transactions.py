"""Short transactions: several documents change together or not at all.

    async def move(session: ClientSession) -> None:
        await accounts.update_one({…}, {…}, session=session)
        await entries.insert_one({…}, session=session)

    await kit.transactions.run(move)

Guarantees
- All of what `work` wrote is there, acknowledged by a majority, when `run` returns; nothing of it when `run`
  raises anything but OutcomeUnknownError.
- A transaction that meets another one (WriteConflict, TransientTransactionError) is tried again, as
  `patience` says, and so is one whose session was ended by whoever took this process for dead. Then
  ConflictError.
- A process that is killed or frozen in a transaction blocks its documents for 1.5 s (`processes`), one that
  is cancelled or runs into a timeout for as long as `killSessions` takes.
- Calls of `work` need no guard of their own, and may have one.

Does not guarantee that a commit whose answer was lost did not happen: OutcomeUnknownError. Whoever repeats it
needs an effect that can be repeated, or a key (`idempotency`). `work` may run several times, so it does
nothing but store calls that pass the session on. What must be one document needs no transaction (DESIGN, "one
document first"): a transaction of three statements takes 2.7 ms against 0.75 for an insert, and 3.5 times the
CPU (measured on the local engine).

When MongoDB is gone: StoreUnavailableError. Redis is not involved. At most AT_ONCE run at a time in one
process, others wait for at most PATIENCE_S, then CrowdedError.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeAlias, TypeVar

from pymongo.errors import PyMongoError

from app.core.clock import Clock
from app.core.errors import ConflictError, StoreUnavailableError
from app.state.mongo import ClientSession, MongoStore
from app.state.patience import PATIENCE_S, Patience
from app.state.processes import Processes
from app.state.turnstile import CrowdedError

T = TypeVar("T")
Work: TypeAlias = Callable[[ClientSession], Awaitable[T]]
"""Store calls that pass the session on. May run more than once, and must not do anything else."""

AT_ONCE = 32
"""Below DB_POOL_MAX's default, so that transactions leave connections to everybody else."""
_INTERRUPTED: Final = 11601
"""What a `mongod` answers to the statement that runs when its session is ended; it bears no label."""


class OutcomeUnknownError(StoreUnavailableError):
    """The answer to a commit was lost: it happened or it did not."""

    def __init__(self) -> None:
        """Say so, unlike its parent, which can promise that nothing was changed."""
        super().__init__("MongoDB")
        self.detail = (
            "The service lost its MongoDB while it was saving this, and can't say whether it was saved. "
            "Look, or repeat the request with the same Idempotency-Key."
        )


class Transactions:
    """Runs transactions. One a process."""

    def __init__(self, *, mongo: MongoStore, processes: Processes, clock: Clock) -> None:
        """`processes` registers the sessions; `clock` measures how long to compete with others."""
        self._mongo = mongo
        self._processes = processes
        self._clock = clock
        self._places = asyncio.Semaphore(AT_ONCE)

    async def run(self, work: Work[T]) -> T:
        """Run `work` in a transaction, commit it and return what `work` returned.

        Raises what `work` raises, with nothing written; ConflictError if others keep changing the same
        documents; StoreUnavailableError, of which OutcomeUnknownError is the one that promises nothing. An
        attempt lasts no longer than MongoDB's timeout, and as long again for its commit.
        """
        patience: Patience | None = None
        async with self._place():
            while True:
                try:
                    return await self._attempt(work)
                except PyMongoError as error:
                    if not is_transient(error):
                        raise
                    patience = patience or Patience(self._clock)  # a freeze before the first try costs none
                    if not await patience.wait():
                        raise ConflictError(
                            "Others are changing the same thing at this moment. Nothing was changed.",
                            headers={"Retry-After": "1"},
                        ) from error

    async def _attempt(self, work: Work[T]) -> T:
        session = await self._processes.take_session()
        at_rest = False
        try:
            result = await self._run_statements(session, work)
            await self._commit(session)
            at_rest = True
        except (StoreUnavailableError, asyncio.CancelledError):
            raise  # a statement may still be on its way
        except BaseException:
            at_rest = True
            raise
        finally:
            if at_rest:
                self._processes.return_session(session)
            else:
                self._processes.end_session(session)
        return result

    async def _run_statements(self, session: ClientSession, work: Work[T]) -> T:
        session.start_transaction()
        try:
            async with self._mongo.guard("transactions.statements"):
                return await work(session)
        except StoreUnavailableError:
            raise
        except Exception:
            async with self._mongo.guard("transactions.abort"):
                await session.abort_transaction()
            raise

    async def _commit(self, session: ClientSession) -> None:
        try:
            async with self._mongo.guard("transactions.commit"):
                await session.commit_transaction()
        except StoreUnavailableError as error:
            raise OutcomeUnknownError from error
        except PyMongoError as error:
            if error.has_error_label("UnknownTransactionCommitResult") or _is_interrupted(error):
                raise OutcomeUnknownError from error
            raise

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._places.acquire()
        except TimeoutError:
            raise CrowdedError from None
        try:
            yield
        finally:
            self._places.release()


def is_transient(error: PyMongoError) -> bool:
    """Say whether the transaction that met this error has written nothing and is worth another try."""
    return error.has_error_label("TransientTransactionError") or _is_interrupted(error)


def _is_interrupted(error: PyMongoError) -> bool:
    return getattr(error, "code", None) == _INTERRUPTED
