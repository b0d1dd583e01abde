"""Types of job that a tenant has stopped for now.

A pause is of one tenant and one type: an admin can stop their own jobs and nobody else's. Jobs that are being
worked on finish; new ones are taken in and wait.

Guarantees
- Once `pause` has returned no worker claims another job of that tenant and type: each looks before it claims.
- After `resume` all of them go on, also those that a slow worker puts aside at that very moment: what is put
  aside names its pause, and workers sweep what names a pause that has ended.

How: a worker that comes upon a job of a paused type puts it aside (`held_by`, and out of the index), so that
what is paused costs one look a job, however many there are.

Document in `job_pauses`: {_id pau_…, tenant_id, type, active?, since, ended_at?, expires_at?}; `active`,
unique, is there until it ends; an ended one is kept for a day. When MongoDB is gone: StoreUnavailableError.
Redis is asked only to index what is released.
"""

import asyncio
import logging
from contextlib import suppress

from pymongo.errors import DuplicateKeyError, PyMongoError

from app.core.clock import Clock
from app.core.errors import StoreUnavailableError
from app.core.ids import new_id
from app.core.moments import to_milliseconds
from app.state.job_documents import WAITING
from app.state.job_index import JobIndex
from app.state.mongo import Document, MongoStore, from_now

_log = logging.getLogger(__name__)

SWEEP_S = 2.0
_KEPT_MS = 86_400_000
_RELEASED_AT_ONCE = 100
"""The local cluster's engine takes 25 ms for an `$in` of so many, and 400 ms for one of 500."""


async def ensure_indexes(mongo: MongoStore) -> None:
    """Create what the queries below need. Safe while serving, and twice."""
    pauses = mongo.collection("job_pauses")
    await pauses.create_index("active", unique=True, sparse=True)
    await pauses.create_index("ended_at", sparse=True)
    await pauses.create_index("expires_at", expireAfterSeconds=0)


class JobPauses:
    """Pauses types, says which are, and lets go of what was held. One a process."""

    def __init__(self, *, mongo: MongoStore, index: JobIndex, clock: Clock) -> None:
        """`clock` follows MongoDB's."""
        self._mongo = mongo
        self._index = index
        self._clock = clock
        self._pauses = mongo.collection("job_pauses")
        self._jobs = mongo.collection("jobs")

    async def pause(self, *, tenant_id: str, job_type: str) -> None:
        """Stop claiming jobs of that type for that tenant. Pausing what is paused changes nothing."""
        row = {
            "_id": new_id("pau"),
            "tenant_id": tenant_id,
            "type": job_type,
            "active": _active(tenant_id, job_type),
            "since": self._clock.now(),
        }
        with suppress(DuplicateKeyError):
            async with self._mongo.guard("job_pauses.insert"):
                await self._pauses.insert_one(row)

    async def resume(self, *, tenant_id: str, job_type: str) -> None:
        """Go on with jobs of that type. Those put aside follow within a few seconds."""
        ended = [
            {"$set": {"ended_at": "$$NOW", "expires_at": from_now(_KEPT_MS), "active": "$$REMOVE"}},
        ]
        active = {"active": _active(tenant_id, job_type)}
        async with self._mongo.guard("job_pauses.find"):
            pause = await self._pauses.find_one(active)
        if pause is not None:
            async with self._mongo.guard("job_pauses.end"):
                await self._pauses.update_one({"_id": pause["_id"], **active}, ended)
            await self._release(pause["_id"])

    async def active(self) -> dict[tuple[str, str], str]:
        """Return the id of the pause of each tenant and type that is paused."""
        async with self._mongo.guard("job_pauses.active"):
            rows = [row async for row in self._pauses.find({"active": {"$gt": ""}})]
        return {(row["tenant_id"], row["type"]): row["_id"] for row in rows}

    async def paused_types(self, tenant_id: str) -> set[str]:
        """Return the types that this tenant has paused."""
        return {job_type for tenant, job_type in await self.active() if tenant == tenant_id}

    async def hold(self, row: Document, pause_id: str) -> None:
        """Put a waiting job aside. Somebody who was faster is left alone."""
        wanted = {"_id": row["_id"], "epoch": row["epoch"], "state": row["state"], "held_by": None}
        async with self._mongo.guard("jobs.hold"):
            await self._jobs.update_one(wanted, {"$set": {"held_by": pause_id}, "$unset": {"slice": ""}})

    async def sweep_forever(self) -> None:
        """Every SWEEP_S, let go of what is held by pauses that have ended. Runs in a worker's tasks."""
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                await self.sweep()
            except StoreUnavailableError:
                continue
            except PyMongoError as error:
                _log.error("job_pauses_not_swept", extra={"reason": str(error)})

    async def sweep(self) -> None:
        """Let go of everything that is held by pauses that have ended."""
        async with self._mongo.guard("job_pauses.ended"):
            ended = [row async for row in self._pauses.find({"ended_at": {"$lte": self._clock.now()}})]
        for row in ended:
            while await self._release(row["_id"]):
                pass

    async def _release(self, pause_id: str) -> bool:
        """Let go of some of what a pause held; False if there was nothing."""
        held = {"held_by": pause_id}
        async with self._mongo.guard("jobs.find_held"):
            rows = await self._jobs.find(held, {"payload": 0}).limit(_RELEASED_AT_ONCE).to_list(None)
        if not rows:
            return False
        waiting = {"_id": {"$in": [row["_id"] for row in rows]}, "state": {"$in": WAITING}}
        async with self._mongo.guard("jobs.release"):
            await self._jobs.update_many({**waiting, **held}, [{"$set": _RELEASED}])
        with suppress(StoreUnavailableError):
            await self._index.add(rows, now_ms=to_milliseconds(self._clock.now()))
        return True


_RELEASED: Document = {"slice": "$slot", "held_by": "$$REMOVE"}


def _active(tenant_id: str, job_type: str) -> str:
    return f"{tenant_id}:{job_type}"
