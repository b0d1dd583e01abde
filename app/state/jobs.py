"""Jobs: what is to be done after a request, or at a time, by whichever worker is there, though processes die.

    await kit.jobs.enqueue(NewJob("forecast.train", {"lane": "HAM-MUC"}, tenant_id=…, user_id=…))

Guarantees
- A job that was enqueued (`enqueue` returned, or the document with its outbox was committed) is run until it
  is completed or dead, though any process dies at any moment and Redis is lost. Dead ones keep their errors.
- One holder: a claim is a compare-and-set on the epoch. Completing, failing, renewing and rescuing name the
  epoch, and all but rescuing ask that the lease is not over by MongoDB's clock: a worker frozen beyond its
  lease commits nothing when it wakes, whether or not somebody else has the job by then.
- `Run.commit` writes a handler's effect and the completion in one transaction: exactly once.
- Errors and crashes are counted apart, each with its own end in the dead letter. A job that was under way
  when its worker died is next tried alone in its worker: it drags nothing along into the dead letter.
- Of jobs with one key at most one is unfinished, in a tenant and a type (unique index).
- Higher priority first, then by when they were due.

Does not guarantee
- that a handler runs once: it runs again if its worker died before it could say so. It uses `Run.commit`, or
  is idempotent by `job.id` (which is what to give to others as an idempotency key).
- an order between jobs, beyond what is claimed first. With Redis gone, priority holds within a thirty-second
  of what waits.
- that a job with a key runs after the one that keeps it from being added has read its data: who needs that
  uses no key.

The outbox. What must be enqueued if and only if a document changes is put into that document, by the same
update, under the field `outbox`; `relay` moves it on, after the commit, by the request, or by any worker
within a few seconds if the request died. Both are safe to do twice.

Documents: `jobs`, see `job_documents`; kept for 7 days when completed, 30 when dead. Cost: an insert and a
script in Redis to enqueue; a script, two reads and an update to claim, however many wait; an
update to finish; a renewal each third of the lease. MongoDB gone: StoreUnavailableError; what runs is
cancelled when its lease ends. Redis gone: found more slowly. Keys: `job_index`. Sources: C. Gray and D.
Cheriton, "Leases", 1989; C. Richardson, "Transactional outbox"; Oban and River for what goes wrong without
epochs.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

from pymongo.errors import DuplicateKeyError, PyMongoError

from app.core.clock import Clock
from app.core.errors import ConflictError, NotFoundError, StoreUnavailableError
from app.core.moments import to_milliseconds
from app.state.job_documents import Job, NewJob, job_from
from app.state.job_index import JobIndex
from app.state.mongo import ClientSession, Document, MongoStore

_log = logging.getLogger(__name__)

RELAY_S = 2.0
RELAY_GRACE = timedelta(seconds=2)
"""How long an outbox is left to the request that filled it."""
_RELAYED_AT_ONCE = 100
_COMMIT_SOON = timedelta(milliseconds=500)
"""When a job that was enqueued in a transaction is first looked for."""


async def ensure_indexes(mongo: MongoStore) -> None:
    """Create what the queries need. Safe while serving, and twice."""
    jobs = mongo.collection("jobs")
    await jobs.create_index("unique_key", unique=True, sparse=True)
    await jobs.create_index("slice", sparse=True)
    await jobs.create_index("lease_expires_at", sparse=True)
    await jobs.create_index("held_by", sparse=True)
    await jobs.create_index("expires_at", expireAfterSeconds=0)
    await jobs.create_index([("tenant_id", 1), ("state", 1), ("type", 1), ("created_at", -1), ("_id", -1)])
    await jobs.create_index([("tenant_id", 1), ("created_at", -1), ("_id", -1)])


async def ensure_outbox_index(mongo: MongoStore, collection: str) -> None:
    """Create what finds filled outboxes in a collection; for those whose documents have one."""
    await mongo.collection(collection).create_index("outbox.created_at", sparse=True)


class Jobs:
    """Enqueues jobs and says how they stand. One a process."""

    def __init__(self, *, mongo: MongoStore, index: JobIndex, clock: Clock) -> None:
        """`clock` follows MongoDB's."""
        self._mongo = mongo
        self._index = index
        self._clock = clock
        self._rows = mongo.collection("jobs")

    async def enqueue(self, job: NewJob, *, session: ClientSession = None) -> str:
        """Have a job done and return its id, or that of the unfinished job that has its key.

        Enqueuing one `id` again changes nothing. With the `session` of a transaction it is there if and only
        if that commits; workers find it up to a second later. Raises StoreUnavailableError; ConflictError in
        a transaction that meets another one about the same key, to be tried again.
        """
        row = job.document(self._clock.now())
        if session is None:
            job_id = await self._insert(row)
            await self._show([row])
            return job_id
        job_id = await self._insert_within(row, session)
        if job_id == job.id:
            await self._show([{**row, "run_at": max(row["run_at"], self._clock.now() + _COMMIT_SOON)}])
        return job_id

    def outbox(self, jobs: Sequence[NewJob]) -> list[Document]:
        """Return what to put under `outbox` in the document that causes these jobs, in the same update.

        To add to an outbox that may not be empty: `{"$push": {"outbox": {"$each": …}}}`.
        """
        now = self._clock.now()
        return [job.document(now) for job in jobs]

    async def relay(self, collection: str, document_id: object) -> None:
        """Enqueue what is in the outbox of a document and take it out. Safe to do twice, and at once.

        Call it after the commit; a failure costs a few seconds, since workers do the same.
        """
        async with self._mongo.guard(f"{collection}.find_outbox"):
            document = await self._mongo.collection(collection).find_one({"_id": document_id}, {"outbox": 1})
        await self._relay(collection, document or {})

    async def relay_forever(self, collections: Sequence[str]) -> None:
        """Every RELAY_S, relay what dead requests left in these collections. Runs in a worker's tasks.

        Each needs `ensure_outbox_index`.
        """
        while True:
            for collection in collections:
                with suppress(StoreUnavailableError):
                    await self.relay_left(collection)
            await asyncio.sleep(RELAY_S)

    async def relay_left(self, collection: str) -> None:
        """Relay the outboxes of a collection that were not emptied within RELAY_GRACE."""
        left = {"outbox.created_at": {"$lte": self._clock.now() - RELAY_GRACE}}
        async with self._mongo.guard(f"{collection}.find_outboxes"):
            found = self._mongo.collection(collection).find(left, {"outbox": 1})
            documents = await found.limit(_RELAYED_AT_ONCE).to_list(None)
        for document in documents:
            try:
                await self._relay(collection, document)
            except PyMongoError as error:
                fields = {"collection": collection, "id": str(document["_id"]), "reason": str(error)}
                _log.error("outbox_not_relayed", extra=fields)

    async def get(self, tenant_id: str, job_id: str) -> Job:
        """Return a job of the tenant. Raises NotFoundError."""
        async with self._mongo.guard("jobs.find"):
            row = await self._rows.find_one({"_id": job_id, "tenant_id": tenant_id})
        if row is None:
            raise NotFoundError
        return job_from(row)

    async def _relay(self, collection: str, document: Document) -> None:
        rows: list[Document] = document.get("outbox") or []
        if not rows:
            return
        for row in rows:
            await self._insert(row)
        relayed = {"_id": {"$in": [row["_id"] for row in rows]}}
        async with self._mongo.guard(f"{collection}.empty_outbox"):
            await self._mongo.collection(collection).update_one(
                {"_id": document["_id"]}, {"$pull": {"outbox": relayed}}
            )
        await self._show(rows)

    async def _insert(self, row: Document) -> str:
        """Insert a row and return its id, or the id of the one that is there in its place."""
        while True:
            try:
                async with self._mongo.guard("jobs.insert"):
                    await self._rows.insert_one(row)
            except DuplicateKeyError:
                found = await self._find_in_place_of(row, None)
                if found is not None:
                    return found
            else:
                job_id: str = row["_id"]
                return job_id

    async def _insert_within(self, row: Document, session: ClientSession) -> str:
        """Do the same in a transaction, which a duplicate key would end: so look first."""
        found = await self._find_in_place_of(row, session)
        if found is not None:
            return found
        try:
            async with self._mongo.guard("jobs.insert"):
                await self._rows.insert_one(row, session=session)
        except DuplicateKeyError as error:
            raise ConflictError("Another request enqueues the same job at this moment. Try again.") from error
        job_id: str = row["_id"]
        return job_id

    async def _find_in_place_of(self, row: Document, session: ClientSession) -> str | None:
        places: list[Document] = [{"_id": row["_id"]}]
        if "unique_key" in row:
            places.append({"unique_key": row["unique_key"]})
        for place in places:
            async with self._mongo.guard("jobs.find_same"):
                found = await self._rows.find_one(place, {"_id": 1}, session=session)
            if found is not None:
                job_id: str = found["_id"]
                return job_id
        return None

    async def _show(self, rows: Sequence[Document]) -> None:
        """Index what was inserted, as well as that goes: workers find it anyway."""
        with suppress(StoreUnavailableError):
            await self._index.add(rows, now_ms=to_milliseconds(self._clock.now()))
