"""Files that were handed in: in MongoDB, in GridFS' layout, written and read a chunk at a time.

    async with kit.files.arriving(tenant_id=…, media_type="application/pdf") as file:
        async for piece in body:
            await file.write(piece)
        await file.finish()
        await kit.transactions.run(lambda session: … await file.keep(session) …)

Guarantees
- Nothing is held whole: a file that arrives takes up one chunk of memory, and at most AT_ONCE arrive in a
  process at the same time. One chunk is what a reader holds, too. Nothing is written to a local disk.
- A file is kept if and only if the transaction commits in which `keep` is a statement: together with the
  document that refers to it, or not at all. What is not kept is removed at the end of the block, and if the
  process died before that, or its commit's outcome was lost, by a worker within ARRIVES_WITHIN and TIDY_S.
- `length` and `sha256` are those of the bytes that were written. The tenant is in every query: another one's
  file does not exist.
- Acknowledged by a majority, read from the primary, like everything else.

Does not guarantee that bytes are what they claim to be: `media_type` is the caller's word.

Documents, as drivers' own GridFS reads them: `uploads.files` {_id fil_…, length, chunkSize, uploadDate,
metadata {tenant_id, media_type, sha256, expires_at?, given_up?}} and `uploads.chunks` {_id, files_id, n,
data}, unique (files_id, n). `expires_at` is there until the file is kept. A file that is given up first loses
the chance to be kept (a compare-and-set, so that a commit under way is met), then its chunks, and an hour
later its record with whatever a process that was frozen has written since.

The drivers' own upload streams are not used: PyMongo 4.9 and later collects chunks for one insert of up to
48 MB, which would be the whole file.

Cost: an insert of CHUNK_BYTES each, two more statements a file; a read a chunk. When MongoDB is gone:
StoreUnavailableError. Redis is not involved. Source: the GridFS specification
(github.com/mongodb/specifications/blob/master/source/gridfs/gridfs-spec.md).
"""

import asyncio
import hashlib
import logging
import random
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from bson import Binary, Int64, ObjectId
from pymongo.errors import PyMongoError

from app.core.clock import Clock
from app.core.errors import CargoFlowError, ConflictError, NotFoundError, StoreUnavailableError
from app.core.ids import new_id
from app.state.mongo import ClientSession, Document, MongoStore
from app.state.turnstile import Turnstile

_log = logging.getLogger(__name__)

FILES: Final = "uploads.files"
CHUNKS: Final = "uploads.chunks"
CHUNK_BYTES: Final = 255 * 1024
"""As GridFS' own: with its document a little below a power of two."""
AT_ONCE: Final = 16
"""Files that arrive in one process at a time: a chunk each, its BSON, and what the socket buffers
(measured: 48 clients who send ten megabytes each at once make a replica of 126 MB one of 167).
"""
WAIT_S: Final = 3.0
"""For one of these places. Below Nginx's read timeout, with room for the rest."""
ARRIVES_WITHIN: Final = timedelta(minutes=10)
"""After it a file that was not kept is nobody's. Far above what a request may take."""
TIDY_S: Final = 60.0
_LATE_CHUNKS: Final = timedelta(hours=1)
"""How long the record of a removed file stays, for chunks that a frozen process may write when it wakes."""
_TIDIED_AT_ONCE: Final = 50


class CrowdedUploadsError(CargoFlowError):
    """As many files arrive at this replica as its memory is good for."""

    status, code, title = 503, "too_many_uploads", "Too many uploads"

    def __init__(self) -> None:
        """Ask for a retry in some seconds."""
        super().__init__(
            "Many files are being uploaded at this moment. Nothing was stored; try again shortly.",
            headers={"Retry-After": "3"},
        )


class FileExpiredError(ConflictError):
    """The file took so long to arrive that it was given up. Nothing was kept."""

    code, title = "upload_expired", "Upload expired"

    def __init__(self) -> None:
        """Ask for the file again."""
        super().__init__("The upload took too long and was not kept. Send the file again.")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that is kept."""

    id: str
    media_type: str
    length: int
    sha256: str


async def ensure_indexes(mongo: MongoStore) -> None:
    """Create what reading, and tidying up, needs. Safe while serving, and twice."""
    await mongo.collection(CHUNKS).create_index([("files_id", 1), ("n", 1)], unique=True)
    # sparse, where partial would do: the local cluster's engine looks nothing up in a partial index
    await mongo.collection(FILES).create_index("metadata.expires_at", sparse=True)


class ArrivingFile:
    """A file of which a part is written. Made by `Files.arriving`, for one task."""

    def __init__(self, mongo: MongoStore, clock: Clock, *, tenant_id: str, media_type: str) -> None:
        """Nothing is stored yet."""
        self.id = new_id("fil")
        self.media_type = media_type
        self.length = 0
        self._mongo = mongo
        self._clock = clock
        self._tenant_id = tenant_id
        self._chunks = 0
        self._pending = bytearray()
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """The hash of what was written so far, in hexadecimal."""
        return self._hash.hexdigest()

    async def write(self, piece: bytes) -> None:
        """Add bytes; returns when no more than a chunk waits to be stored. Raises StoreUnavailableError."""
        self._hash.update(piece)
        self.length += len(piece)
        self._pending += piece
        while len(self._pending) >= CHUNK_BYTES:
            await self._store(CHUNK_BYTES)

    async def finish(self) -> None:
        """Store what is left. Raises StoreUnavailableError."""
        if self._pending:
            await self._store(len(self._pending))

    async def keep(self, session: ClientSession) -> StoredFile:
        """Keep the file, as a statement of a transaction. Raises FileExpiredError if it was given up."""
        arriving = {
            "_id": self.id,
            "metadata.tenant_id": self._tenant_id,
            "metadata.expires_at": {"$gt": self._clock.now()},
            "metadata.given_up": {"$exists": False},
        }
        kept = {"length": Int64(self.length), "metadata.sha256": self.sha256}
        result = await self._mongo.collection(FILES).update_one(
            arriving, {"$set": kept, "$unset": {"metadata.expires_at": ""}}, session=session
        )
        if result.modified_count == 0:
            raise FileExpiredError
        return StoredFile(self.id, self.media_type, self.length, self.sha256)

    async def announce(self) -> None:
        """Record that it is on its way, so that whatever is stored of it is found. Before any chunk."""
        now = self._clock.now()
        record: Document = {
            "_id": self.id,
            "length": Int64(0),
            "chunkSize": CHUNK_BYTES,
            "uploadDate": now,
            "metadata": {
                "tenant_id": self._tenant_id,
                "media_type": self.media_type,
                "expires_at": now + ARRIVES_WITHIN,
            },
        }
        async with self._mongo.guard("files.announce"):
            await self._mongo.collection(FILES).insert_one(record)

    async def _store(self, size: int) -> None:
        chunk: Document = {
            "_id": ObjectId(),
            "files_id": self.id,
            "n": self._chunks,
            "data": Binary(bytes(memoryview(self._pending)[:size])),
        }
        async with self._mongo.guard("files.write"):
            await self._mongo.collection(CHUNKS).insert_one(chunk)
        del self._pending[:size]
        self._chunks += 1


class Files:
    """The files of all tenants. One a process."""

    def __init__(self, *, mongo: MongoStore, clock: Clock) -> None:
        """`clock` follows MongoDB's."""
        self._mongo = mongo
        self._clock = clock
        self._places = asyncio.Semaphore(AT_ONCE)
        self._turns = Turnstile()
        self._files = mongo.collection(FILES)
        self._chunks = mongo.collection(CHUNKS)

    @asynccontextmanager
    async def arriving(self, *, tenant_id: str, media_type: str) -> AsyncIterator[ArrivingFile]:
        """Begin a file; at the end of the block it is gone unless a transaction has kept it.

        Raises CrowdedUploadsError, StoreUnavailableError.
        """
        async with self._place():
            file = ArrivingFile(self._mongo, self._clock, tenant_id=tenant_id, media_type=media_type)
            await file.announce()
            try:
                yield file
            finally:
                with suppress(StoreUnavailableError, PyMongoError):  # a worker does it in ten minutes
                    await self._give_up({"_id": file.id})

    def turn(self, owner_id: str) -> AbstractAsyncContextManager[bool]:
        """Return the block in which to keep a file for this owner: one at a time in a process.

        Those of one owner would run into each other's unique keys: of twenty at once some tried in vain for
        as long as a transaction has patience. Raises CrowdedError.
        """
        return self._turns.turn(owner_id)

    async def get(self, tenant_id: str, file_id: str) -> StoredFile:
        """Return a file that is kept. Raises NotFoundError."""
        kept = {"_id": file_id, "metadata.tenant_id": tenant_id, "metadata.expires_at": {"$exists": False}}
        async with self._mongo.guard("files.find"):
            row = await self._files.find_one(kept)
        if row is None:
            raise NotFoundError
        about = row["metadata"]
        return StoredFile(row["_id"], about["media_type"], int(row["length"]), about["sha256"])

    async def read(self, file: StoredFile) -> AsyncIterator[bytes]:
        """Yield a file's bytes, a chunk at a time. Raises NotFoundError if some are missing."""
        for number in range(-(-file.length // CHUNK_BYTES)):
            async with self._mongo.guard("files.read"):
                row = await self._chunks.find_one({"files_id": file.id, "n": number}, {"data": 1})
            if row is None:
                raise NotFoundError
            yield bytes(row["data"])

    async def tidy_forever(self) -> None:
        """Every TIDY_S, remove what dead processes left. Runs in a worker's tasks."""
        while True:
            await asyncio.sleep(TIDY_S * random.uniform(0.75, 1.25))  # noqa: S311  # spreads the workers
            try:
                await self.tidy()
            except StoreUnavailableError:
                continue
            except PyMongoError as error:
                _log.error("uploads_not_tidied", extra={"reason": str(error)})

    async def tidy(self) -> int:
        """Remove what expired, and return how many files that were. Safe to do twice, and at once."""
        over = {"metadata.expires_at": {"$lte": self._clock.now()}}
        async with self._mongo.guard("files.find_expired"):
            found = self._files.find(over, {"metadata.given_up": 1}).limit(_TIDIED_AT_ONCE)
            rows = await found.to_list(None)
        for row in rows:
            if "given_up" in row.get("metadata", {}):
                await self._forget(row["_id"])
            else:
                await self._give_up({"_id": row["_id"], **over})
        return len(rows)

    async def _give_up(self, which: Document) -> None:
        """Take from a file the chance to be kept, and then its chunks; nothing if it is kept."""
        unkept = {
            "_id": which["_id"],
            "metadata.expires_at": {"$exists": True},
            **which,
            "metadata.given_up": {"$exists": False},
        }
        changes = {"metadata.given_up": True, "metadata.expires_at": self._clock.now() + _LATE_CHUNKS}
        async with self._mongo.guard("files.give_up"):
            result = await self._files.update_one(unkept, {"$set": changes})
        if result.modified_count:
            async with self._mongo.guard("files.drop_chunks"):
                await self._chunks.delete_many({"files_id": which["_id"]})

    async def _forget(self, file_id: str) -> None:
        async with self._mongo.guard("files.drop_chunks"):
            await self._chunks.delete_many({"files_id": file_id})
        async with self._mongo.guard("files.forget"):
            await self._files.delete_one({"_id": file_id, "metadata.given_up": True})

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(WAIT_S):
                await self._places.acquire()
        except TimeoutError:
            raise CrowdedUploadsError from None
        try:
            yield
        finally:
            self._places.release()
