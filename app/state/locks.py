"""Locks with a lease and a fencing token, in MongoDB, and writes that only their holder can make.

    async with kit.locks.hold("loan:lon_…", lease_s=15, wait_s=2) as lock:
        await lock.write(lambda session: loans.update_one(…, session=session))

Guarantees
- One holder: a lock is taken by compare-and-set on its token, and only when it is free or its lease is over
  by MongoDB's own clock at that moment. The lease is renewed while the block runs.
- `lock.token` only grows, one a holder, through release, expiry and death; rows are never deleted for that.
- The block is cancelled and LockLostError raised when the lease is about to end (renewals don't get
  through) or is found to be another's: before the lease ends on the server, unless the process is paused.
- A process that is paused past its lease can't write when it wakes. `lock.write` runs in a transaction whose
  last statement renews the lease if token and claim are still there and the lease is not over on the server's
  clock. That statement changes the row, so taking the lock conflicts with it instead of passing it by.
- A late release or renewal frees or prolongs nobody else's lock: both name the claim.
- Cancelled anywhere, a process leaves a lease that runs out, and nothing worse.

Does not guarantee
- that effects other than `lock.write` stop with the lease: give the token to whoever takes them, and let it
  refuse a lower one. For one document, `fenced` in its filter does that without a transaction: it keeps the
  predecessor of a holder out, though not one whose lease ended without a successor.
- that a commit which is already on its way when the lease ends is refused while nobody has taken the lock
  or swept it. Nobody else can have held it in between.
- an order among those who wait, or a release after a write was cut off half-way: that lease runs out.

Transactions of the dead. A transaction whose process died or froze blocks its documents for up to 60 s: plain
updates of them hang, others get WriteConflict (measured on the local engine, which has no setting for it).
So sessions for transactions are registered with their process (`processes`): of one that is dead or frozen
they are ended within 1.5 s. And a row says which one its holder uses, for holders whose process lives on:
whoever finds the lease over, to take the lock or in the sweep that every worker makes each SWEEP_S, ends that
session with `killSessions` first (3 ms; users may end their own): the documents are free, and the late one's
commit fails. They are blocked for lease + SWEEP_S at most.

Document in `locks`: {_id name, token, claim, holder, session, since, expires_at, beats}, of which claim to
expires_at are null when free. Cost: a read and an update to take, an update to release, renewals every
third of the lease; a write one statement and a commit more than its own. When MongoDB is gone:
StoreUnavailableError. Redis is not involved. Sources: C. G. Gray and D. R. Cheriton, "Leases", 1989;
M. Kleppmann, "How to do distributed locking", 2016.
"""

import asyncio
import logging
import math
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from pymongo.errors import DuplicateKeyError, PyMongoError

from app.core.clock import Clock
from app.core.errors import ConflictError, StoreUnavailableError
from app.core.ids import new_id
from app.core.metrics import Metrics
from app.state.held_lock import FREE, Lock
from app.state.mongo import LEASE_RUNS, Document, MongoStore, from_now, literal, milliseconds, unexpired
from app.state.processes import Processes

_log = logging.getLogger(__name__)

LEASE_S = 15.0
SWEEP_S = 2.0
_FIRST_PAUSE_S = 0.01
_LONGEST_PAUSE_S = 0.25
_SWEPT_AT_ONCE = 100


class LockHeldError(ConflictError):
    """Somebody else holds the lock."""

    code, title = "lock_held", "Locked"

    def __init__(self, *, retry_after_s: int) -> None:
        """`retry_after_s` is when the present lease would end."""
        super().__init__(
            "Somebody else is working on this. Nothing was changed; try again shortly.",
            headers={"Retry-After": str(retry_after_s)},
        )


@dataclass(frozen=True, slots=True)
class Holding:
    """Who holds what, for operators. `holder` is the process's name."""

    name: str
    token: int
    holder: str
    since: datetime
    expires_at: datetime


async def ensure_indexes(mongo: MongoStore) -> None:
    """Create what the queries below need. Safe while serving, and twice."""
    await mongo.collection("locks").create_index("expires_at")


class Locks:
    """Takes, lists and sweeps locks. One a process."""

    def __init__(
        self, *, mongo: MongoStore, processes: Processes, clock: Clock, metrics: Metrics, holder: str
    ) -> None:
        """`holder` is the process's name, for operators. `clock` follows MongoDB's, to know when asking for
        a lock is worth it.
        """
        self._mongo = mongo
        self._processes = processes
        self._clock = clock
        self._metrics = metrics
        self._holder = holder
        self._rows = mongo.collection("locks")

    @asynccontextmanager
    async def hold(self, name: str, *, lease_s: float = LEASE_S, wait_s: float = 0.0) -> AsyncIterator[Lock]:
        """Hold the lock called `name` ("kind:id") for the length of the block.

        Tries for `wait_s` (0: once), then raises LockHeldError; StoreUnavailableError without MongoDB. The
        block is cancelled and LockLostError raised when the lease can't be kept. `lease_s` is how long others
        wait after a holder's death; below a second or two, a pause of MongoDB loses it.
        """
        kind = name.partition(":")[0]
        lock = await self._acquire(name, kind, lease_s, wait_s)
        self._metrics.lock(kind, "taken", lock.token)
        fields: dict[str, object] = {"lock": name, "fence": lock.token}  # under "token" the log would hide it
        _log.info("lock_taken", extra=fields)
        outcome = "left"
        try:
            async with lock.kept():
                yield lock
        finally:
            try:
                if lock.settled:
                    self._processes.return_session(lock.session)
                    outcome = "released" if await lock.release() else "lost"
                else:
                    self._processes.end_session(lock.session)
            except StoreUnavailableError as error:
                fields["reason"] = error.detail
            finally:
                self._metrics.lock(kind, outcome, lock.token)
                _log.log(
                    logging.INFO if outcome == "released" else logging.WARNING,
                    f"lock_{outcome}",
                    extra=fields,
                )

    async def held(self) -> list[Holding]:
        """Return who holds what, longest held first."""
        async with self._mongo.guard("locks.held"):
            rows = [row async for row in self._rows.find(unexpired(self._clock.now()))]
        found = (
            Holding(row["_id"], row["token"], row["holder"], row["since"], row["expires_at"]) for row in rows
        )
        return sorted(found, key=lambda lock: lock.since)

    async def sweep_forever(self) -> None:
        """Every SWEEP_S, end what dead holders left. Runs in a worker's tasks."""
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                await self.sweep()
            except StoreUnavailableError:
                continue
            except PyMongoError as error:
                _log.error("locks_not_swept", extra={"reason": str(error)})

    async def sweep(self) -> None:
        """Free the locks whose lease is over, and the documents their holders' transactions block."""
        async with self._mongo.guard("locks.find_expired"):
            rows = [
                row
                async for row in self._rows.find({"expires_at": {"$lte": self._clock.now()}}).limit(
                    _SWEPT_AT_ONCE
                )
            ]
        for row in rows:
            if await self._write_if_over(row, FREE):
                fields = {"lock": row["_id"], "fence": row["token"], "holder": row["holder"]}
                _log.warning("lock_abandoned", extra=fields)

    async def _acquire(self, name: str, kind: str, lease_s: float, wait_s: float) -> Lock:
        gives_up_s = self._clock.monotonic_s() + wait_s
        pause_s = _FIRST_PAUSE_S
        while True:
            row = await self._get_row(name)
            lock = await self._take(row, lease_s) if self._looks_free(row) else None
            if lock is not None:
                return lock
            patience_s = gives_up_s - self._clock.monotonic_s()
            if patience_s <= 0:
                self._metrics.lock(kind, "refused", row["token"])
                raise LockHeldError(retry_after_s=self._retry_after_s(row, lease_s))
            await asyncio.sleep(min(random.uniform(0, pause_s), patience_s))  # noqa: S311  # spreads contenders
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    async def _get_row(self, name: str) -> Document:
        async with self._mongo.guard("locks.find"):
            row: Document | None = await self._rows.find_one({"_id": name})
        if row is not None:
            return row
        new: Document = {"_id": name, "token": 0, "beats": 0, **FREE}
        with suppress(DuplicateKeyError):
            async with self._mongo.guard("locks.insert"):
                await self._rows.insert_one(new)
        return new

    async def _take(self, row: Document, lease_s: float) -> Lock | None:
        session = await self._processes.take_session()
        claim, token = new_id("lck"), row["token"] + 1
        taken = {
            "token": token,
            "claim": claim,
            "holder": literal(self._holder),
            "session": literal(session.session_id["id"]),
            "since": "$$NOW",
            "expires_at": from_now(milliseconds(lease_s)),
        }
        asked_s = self._clock.monotonic_s()
        try:
            won = await self._write_if_over(row, taken)
        except BaseException:
            self._processes.return_session(session)  # nothing ran in it
            raise
        if not won:
            self._processes.return_session(session)
            return None
        return Lock(
            mongo=self._mongo,
            clock=self._clock,
            name=row["_id"],
            token=token,
            claim=claim,
            lease_s=lease_s,
            session=session,
            asked_s=asked_s,
        )

    async def _write_if_over(self, row: Document, fields: Document) -> bool:
        """Set these fields of a row as it was read if no lease runs, having ended the dead's transaction.

        Should the lease run after all, by a hair, its holder's transaction is tried again: nothing is lost.
        """
        if row["session"] is not None:
            await self._end_session(row["session"])
        changes = {field: {"$cond": [LEASE_RUNS, f"${field}", value]} for field, value in fields.items()}
        async with self._mongo.guard("locks.update"):
            result = await self._rows.update_one(
                {"_id": row["_id"], "token": row["token"]}, [{"$set": changes}]
            )
        return result.modified_count == 1

    async def _end_session(self, session_id: object) -> None:
        async with self._mongo.guard("locks.end_session"):
            await self._mongo.database.client.admin.command("killSessions", [{"id": session_id}])

    def _looks_free(self, row: Document) -> bool:
        return row["expires_at"] is None or row["expires_at"] <= self._clock.now()

    def _retry_after_s(self, row: Document, lease_s: float) -> int:
        """Return when the lease ends as things are, at most as far away as a lease is long."""
        if row["expires_at"] is None:
            return 1
        remaining: timedelta = row["expires_at"] - self._clock.now()
        return max(1, math.ceil(min(remaining.total_seconds(), lease_s)))
