"""What the holder of a lock has in hand: the token, the lease it keeps up, and writes that need both.

`app.state.locks` makes it and says what is guaranteed.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

from pymongo.errors import PyMongoError

from app.core.clock import Clock
from app.core.errors import ConflictError, StoreUnavailableError
from app.state.mongo import (
    LEASE_RUNS,
    UNAVAILABLE,
    ClientSession,
    Document,
    MongoStore,
    from_now,
    milliseconds,
)
from app.state.patience import Patience
from app.state.transactions import Work

T = TypeVar("T")

RENEW_SHARE = 1 / 3
"""Of the lease, between renewals: two may fail before it ends."""
SAFETY_SHARE = 0.1
"""Of the lease, by which its holder gives up before the server does; clocks drift far less."""
_RETRY_SHARE = 1 / 20

FREE: Document = {"claim": None, "holder": None, "session": None, "since": None, "expires_at": None}
"""The fields of a lock nobody holds."""


class LockLostError(ConflictError):
    """The lease was not kept: what was to be written under the lock was not, or stopped half-way."""

    code, title = "lock_lost", "Lock lost"

    def __init__(self) -> None:
        """Ask for a retry in a second."""
        super().__init__(
            "This took too long and the lock on it ran out. Look at how it stands, then try again.",
            headers={"Retry-After": "1"},
        )


def fenced(token: int, field: str = "fence") -> Document:
    """Return a filter: no holder with a higher token has written. The update must set `field` to `token`."""
    return {field: {"$not": {"$gt": token}}}


class Lock:
    """A lock that is held. Made by `Locks.hold`, of no use after its block."""

    def __init__(
        self,
        *,
        mongo: MongoStore,
        clock: Clock,
        name: str,
        token: int,
        claim: str,
        lease_s: float,
        session: ClientSession,
        asked_s: float,
    ) -> None:
        """`asked_s` is when the lease was asked for, in the clock's monotonic seconds: it ends no sooner than
        `lease_s` after that.
        """
        self.name = name
        self.token = token
        self.session = session
        self.settled = True
        """Whether its last transaction is known to be over. Else the lease has to run out."""
        self._mongo = mongo
        self._clock = clock
        self._rows = mongo.collection("locks")
        self._row: Document = {"_id": name, "token": token, "claim": claim}
        self._lease_s = lease_s
        self._ends_s = asked_s + lease_s * (1 - SAFETY_SHARE)
        self._block: asyncio.Timeout | None = None
        self._turn = asyncio.Lock()
        """Renewals and writes of one holder would conflict with each other: one at a time."""

    async def write(self, work: Work[T]) -> T:
        """Run `work` in a transaction that commits only while the lock is held, and renew the lease with it.

        Raises LockLostError if it is not held, or what `work` raises, with nothing written; ConflictError if
        others keep changing the same documents; StoreUnavailableError when it is not known whether it
        committed: no more writes then, and the lease runs out. An attempt lasts no longer than MongoDB's
        timeout.
        """
        patience = Patience(self._clock)
        while True:
            async with self._turn:
                if self._block is None or not self.settled or self._remaining_s() <= 0:
                    raise LockLostError
                try:
                    async with self._mongo.guard("locks.write"):
                        return await self._transaction(work)
                except PyMongoError as error:
                    if not error.has_error_label("TransientTransactionError"):
                        raise
                    if not await self._renew_alone():  # else it would get in its successor's way again
                        raise LockLostError from error
            if not await patience.wait():
                raise ConflictError("Others are changing the same thing at this moment. Try again.")

    async def _transaction(self, work: Work[T]) -> T:
        self.settled = False
        self.session.start_transaction()
        try:
            result = await work(self.session)
            asked_s = self._clock.monotonic_s()
            await self._renew_or_fail(self.session)
            await self.session.commit_transaction()
        except Exception as error:
            if isinstance(error, (StoreUnavailableError, *UNAVAILABLE)):
                raise  # a statement may still be on its way: the session is given up as it is
            if self.session.in_transaction:
                await self.session.abort_transaction()
            self.settled = True
            raise
        self.settled = True
        self._prolong(asked_s)
        return result

    async def release(self) -> bool:
        """Free the lock if it is still this holder's, and say whether it was."""
        async with self._mongo.guard("locks.release"):
            result = await self._rows.update_one(self._row, {"$set": FREE})
        return result.matched_count == 1

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Renew the lease during the block and cancel it when that fails; raises LockLostError then."""
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
                raise LockLostError from error
            raise error from error.__cause__

    async def _renew_forever(self) -> None:
        pause_s = self._lease_s * RENEW_SHARE
        while True:
            await asyncio.sleep(pause_s)
            async with self._turn:
                try:
                    if not await self._renew_alone():
                        return
                    pause_s = self._lease_s * RENEW_SHARE
                except (StoreUnavailableError, PyMongoError):
                    pause_s = self._lease_s * _RETRY_SHARE

    async def _renew_alone(self) -> bool:
        """Renew outside of a transaction; a lock that is not held any more ends the block at once."""
        asked_s = self._clock.monotonic_s()
        async with self._mongo.guard("locks.renew"):
            held = await self._renew()
        self._prolong(asked_s if held else asked_s - self._lease_s)
        return held

    async def _renew(self, *, session: ClientSession = None) -> bool:
        """Say whether the lock is held by this claim, its lease not over, and if so move its end on.

        `beats` makes it a change of the row even within one millisecond.
        """
        renewal = {"expires_at": from_now(milliseconds(self._lease_s)), "beats": {"$add": ["$beats", 1]}}
        changes = {field: {"$cond": [LEASE_RUNS, value, f"${field}"]} for field, value in renewal.items()}
        result = await self._rows.update_one(self._row, [{"$set": changes}], session=session)
        return result.modified_count == 1

    async def _renew_or_fail(self, session: ClientSession) -> None:
        if not await self._renew(session=session):
            raise LockLostError

    def _prolong(self, asked_s: float) -> None:
        self._ends_s = asked_s + self._lease_s * (1 - SAFETY_SHARE)
        if self._block is not None and not self._block.expired():
            self._block.reschedule(asyncio.get_running_loop().time() + self._remaining_s())

    def _remaining_s(self) -> float:
        return self._ends_s - self._clock.monotonic_s()
