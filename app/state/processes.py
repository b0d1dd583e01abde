"""Which processes are alive, and the driver's sessions in which their transactions run.

    session = await kit.processes.take_session()      # `transactions` and `locks` do that, nobody else

Guarantees
- Every replica and worker that reaches MongoDB has a row, renewed each BEAT_S, whose lease ends by MongoDB's
  own clock LEASE_S after the last renewal.
- A session is named in its process's row before a transaction runs in it. Whoever finds the lease over, and
  every process looks no later than SWEEP_S after the first lease that it saw ends, marks the row by
  compare-and-set, so that one does it, ends its sessions with `killSessions` (3 ms; users may end their own),
  and removes it. Should that one die in between, the mark's own lease runs out and another does it again.
- So what a transaction of a killed or frozen process had blocked is free LEASE_S + SWEEP_S after its last
  beat, 1.5 s: sooner than an update that waits for it runs into MongoDB's timeout. Left alone it stays
  blocked for up to 60 s: plain updates of it hang, others get WriteConflict (measured on the local engine,
  which has no setting for it).
- A frozen process whose row was swept finds that out by its next beat, and before its next transaction:
  it registers anew, with new sessions. What it had open fails and is tried again.
- A session whose transaction was cut off, by a timeout or a cancellation, is never used again. It is ended at
  once, and again with each beat for as long as a statement that was on its way could still arrive.

Does not guarantee that a row means a process that serves: it reached MongoDB LEASE_S ago. Nothing but freeing
what the dead blocked, and showing operators who is there, may rest on it; leases of their own say who may
write what. A process that is frozen between looking at its lease and sending a transaction's first statement,
and killed as soon as it goes on, blocks its documents for a minute after all.

When MongoDB is gone, rows stop being renewed; when it is back everybody beats before sweeping others. Redis
is not involved.

Document in `processes`, one a process and hence read whole: {_id prc_…, name, kind, pid, url, version,
started_at, beat_at, expires_at, sessions, pools, in_flight, draining, swept}. A beat is one update by _id, a
sweep one read of all leases, about once a LEASE_S. Source: C. G. Gray and D. R. Cheriton, "Leases", 1989.
"""

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from bson import Binary
from pymongo.errors import PyMongoError

from app.core.clock import Clock
from app.core.errors import StoreUnavailableError
from app.core.ids import new_id
from app.state.mongo import (
    LEASE_RUNS,
    ClientSession,
    Document,
    MongoStore,
    from_now,
    literal,
    milliseconds,
    unexpired,
)

_log = logging.getLogger(__name__)

BEAT_S = 0.4
LEASE_S = 1.2
SWEEP_S = 0.3
_SESSIONS_AT_ONCE = 8
_SWEPT_AT_ONCE = 100
_ENDED_FOR_S = 10.0
"""How long a statement of a cut-off transaction may linger in the driver: above its wait for a connection and
its timeouts together.
"""

Kind = Literal["replica", "worker", "command"]
Vitals = Callable[[], Document]
"""Returns what a beat tells of the process: `pools`, `in_flight`, `draining`. No I/O."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What stays the same about a process while it runs. `url` is None where it is not known."""

    name: str
    kind: Kind
    version: str
    url: str | None = None
    pid: int = field(default_factory=os.getpid)


@dataclass(frozen=True, slots=True)
class Process:
    """A process as its last beat told, `beat_age_ms` ago."""

    name: str
    kind: Kind
    version: str
    url: str | None
    pid: int
    started_at: datetime
    beat_age_ms: int
    draining: bool
    in_flight: int
    pools: dict[str, dict[str, int]]


class Processes:
    """This process's row, its sessions, and the eye it has on the others. One a process."""

    def __init__(self, *, mongo: MongoStore, clock: Clock, identity: Identity, vitals: Vitals) -> None:
        """`clock` follows MongoDB's, to know when looking closer at a lease is worth it."""
        self._mongo = mongo
        self._clock = clock
        self._identity = identity
        self._vitals = vitals
        self._rows = mongo.collection("processes")
        self._started_s = clock.monotonic_s()
        self._turn = asyncio.Lock()
        """One beat at a time."""
        self._id = ""
        self._ends_s = self._started_s
        self._sweeps_from_s = self._started_s
        self._session_ids: set[Binary] = set()
        """What the row names."""
        self._idle: deque[ClientSession] = deque()
        """Never given back to the driver, which would use them for other calls: ending a dead process's
        sessions must hit nothing but transactions, which are tried again.
        """
        self._cut_off: dict[Binary, float] = {}
        """Sessions to be ended, with the time until which that is repeated."""
        self._hurry = asyncio.Event()

    async def take_session(self) -> ClientSession:
        """Return a session that nobody else uses, registered. Raises StoreUnavailableError.

        Hand it to `return_session` if it is known that nothing runs in it any more, else to `end_session`.
        """
        if self._clock.monotonic_s() >= self._ends_s:
            await self.beat()
        while not self._idle:
            await self._add_sessions()
        return self._idle.popleft()

    def return_session(self, session: ClientSession) -> None:
        """Take back a session that is at rest; one from before the present registration is let go."""
        if _id_of(session) in self._session_ids:
            self._idle.append(session)

    def end_session(self, session: ClientSession) -> None:
        """Have a session ended soon, in which a statement may still be under way. Does not wait."""
        self._cut_off[_id_of(session)] = self._clock.monotonic_s() + _ENDED_FOR_S
        self._hurry.set()

    async def beat_forever(self) -> None:
        """Keep this process's row alive, and end what was cut off. Runs in the kit's tasks."""
        while True:
            try:
                await self.beat()
                await self._end_cut_off()
            except StoreUnavailableError:
                pass  # the breaker has said so
            except PyMongoError as error:
                _log.error("beat_failed", extra={"reason": str(error)})
            with suppress(TimeoutError):
                async with asyncio.timeout(BEAT_S):
                    await self._hurry.wait()
            self._hurry.clear()

    async def beat(self) -> None:
        """Renew the row's lease and what it says; register, if that has not been done or was undone."""
        async with self._turn:
            await self._write_row()

    async def sweep_forever(self) -> None:
        """End what dead processes left, soon after their leases end. Runs in the kit's tasks."""
        pause_s = SWEEP_S
        while True:
            await asyncio.sleep(pause_s)
            pause_s = SWEEP_S
            try:
                pause_s = await self.sweep()
            except StoreUnavailableError:
                continue
            except PyMongoError as error:
                _log.error("processes_not_swept", extra={"reason": str(error)})

    async def sweep(self) -> float:
        """End the sessions of processes whose lease is over, and remove their rows.

        Returns in how many seconds to look again: when the first lease ends that runs now, unless renewed; at
        least SWEEP_S. Whose row is new by then lives longer still.

        Not within LEASE_S of having been away from MongoDB: most likely so were the others, who have as much
        time to come back.
        """
        now_s = self._clock.monotonic_s()
        if now_s >= self._ends_s or now_s < self._sweeps_from_s:
            return SWEEP_S
        now = self._clock.now()
        async with self._mongo.guard("processes.leases"):
            ends = {row["_id"]: row["expires_at"] async for row in self._rows.find({}, {"expires_at": 1})}
        for row_id in [row_id for row_id, end in ends.items() if end <= now][:_SWEPT_AT_ONCE]:
            if await self._mark_if_over(row_id):
                await self._bury(row_id)
        first_end_s = (min(ends.values(), default=now) - self._clock.now()).total_seconds()
        return min(max(SWEEP_S, first_end_s), LEASE_S)

    async def alive(self) -> list[Process]:
        """Return who is there, by name. Raises StoreUnavailableError."""
        now = self._clock.now()
        async with self._mongo.guard("processes.alive"):
            rows = [row async for row in self._rows.find(unexpired(now), {"sessions": 0})]
        return sorted(
            (_process(row, now) for row in rows if not row["swept"]), key=lambda process: process.name
        )

    async def leave(self) -> None:
        """Take this process's row away, unless something of it has yet to be ended: then others do it."""
        with suppress(StoreUnavailableError, PyMongoError):
            if not self._cut_off:
                async with self._mongo.guard("processes.delete"):
                    await self._rows.delete_one({"_id": self._id})

    async def _write_row(self) -> None:
        asked_s = self._clock.monotonic_s()
        if asked_s >= self._ends_s and self._id:
            self._sweeps_from_s = asked_s + LEASE_S
        if not (self._id and await self._renew()):
            await self._register()
        self._ends_s = asked_s + LEASE_S

    async def _renew(self) -> bool:
        """Say whether the row is still this process's."""
        async with self._mongo.guard("processes.beat"):
            result = await self._rows.update_one(
                {"_id": self._id, "swept": False}, [{"$set": self._renewal()}]
            )
        return result.matched_count == 1

    async def _register(self) -> None:
        """Insert a new row with new sessions; those of a row that was swept are forgotten."""
        if self._id:
            _log.warning("process_was_taken_for_dead")
        row_id = new_id("prc")
        self._idle.clear()
        sessions = await self._new_sessions()
        self._session_ids = {_id_of(session) for session in sessions}
        identity = {
            name: literal(getattr(self._identity, name)) for name in ("name", "kind", "version", "url", "pid")
        }
        uptime_ms = milliseconds(self._clock.monotonic_s() - self._started_s)
        row = {**identity, "started_at": from_now(-uptime_ms), "swept": False, **self._renewal()}
        async with self._mongo.guard("processes.register"):
            await self._rows.update_one({"_id": row_id}, [{"$set": row}], upsert=True)
        self._id = row_id
        self._idle.extend(sessions)

    async def _add_sessions(self) -> None:
        """Name more sessions in the row, then have them ready."""
        async with self._turn:
            if self._idle:
                return
            sessions = await self._new_sessions()
            more = {_id_of(session) for session in sessions}
            self._session_ids |= more
            try:
                await self._write_row()
            except BaseException:
                self._session_ids -= more
                raise
            if more <= self._session_ids:  # else the row had been swept, and there are new ones
                self._idle.extend(sessions)

    async def _new_sessions(self) -> list[ClientSession]:
        client = self._mongo.database.client
        return [await client.start_session() for _ in range(_SESSIONS_AT_ONCE)]

    def _renewal(self) -> Document:
        return {
            "beat_at": "$$NOW",
            "expires_at": from_now(milliseconds(LEASE_S)),
            "sessions": literal(list(self._session_ids)),
            **{name: literal(value) for name, value in self._vitals().items()},
        }

    async def _end_cut_off(self) -> None:
        if not self._cut_off:
            return
        await self._kill(self._cut_off)
        now_s = self._clock.monotonic_s()
        for session_id in [session_id for session_id, until_s in self._cut_off.items() if until_s <= now_s]:
            del self._cut_off[session_id]
            self._session_ids.discard(session_id)

    async def _mark_if_over(self, row_id: str) -> bool:
        """Mark a row as swept if its lease is over, and say whether this call did it."""
        fields = {"swept": True, "expires_at": from_now(milliseconds(LEASE_S))}
        changes = {name: {"$cond": [LEASE_RUNS, f"${name}", value]} for name, value in fields.items()}
        async with self._mongo.guard("processes.mark"):
            result = await self._rows.update_one({"_id": row_id}, [{"$set": changes}])
        return result.modified_count == 1

    async def _bury(self, row_id: str) -> None:
        """End the sessions that a marked row names, and remove it."""
        async with self._mongo.guard("processes.find_dead"):
            row = await self._rows.find_one({"_id": row_id, "swept": True})
        if row is None:
            return
        await self._kill(row["sessions"])
        async with self._mongo.guard("processes.delete"):
            await self._rows.delete_one({"_id": row_id, "swept": True})
        _log.warning("process_found_dead", extra={"dead": row["name"], "dead_pid": row["pid"]})

    async def _kill(self, session_ids: Iterable[Binary]) -> None:
        async with self._mongo.guard("processes.end_sessions"):
            await self._mongo.database.client.admin.command(
                "killSessions", [{"id": session_id} for session_id in session_ids]
            )


def _id_of(session: ClientSession) -> Binary:
    session_id: Binary = session.session_id["id"]
    return session_id


def _process(row: Document, now: datetime) -> Process:
    names = ("name", "kind", "version", "url", "pid", "started_at", "draining", "in_flight", "pools")
    age_ms = round((now - row["beat_at"]).total_seconds() * 1000)
    return Process(**{name: row[name] for name in names}, beat_age_ms=max(0, age_ms))
