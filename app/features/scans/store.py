"""Documents in MongoDB; their bytes are in `state.files`.

Guarantees
- A document is there together with its file and the job that reads it, or none of them is: one transaction.
- One file is one document of an application, however often and at once it is handed in: unique (application,
  hash). An application has DOCUMENTS_MAX at most: unique (application, number).
- What was read is written once, in the transaction that completes its job.
- The tenant is in every query; who may see the application is asked before.

When MongoDB is gone: StoreUnavailableError. Redis is only told of new jobs. The document is described in
`documents`, its indexes are in `state.feature_indexes`. Every query is by id, or by application.
"""

from typing import Final

from pymongo.errors import DuplicateKeyError

from app.core.errors import NotFoundError
from app.core.ids import new_id
from app.core.moments import to_the_millisecond
from app.features.scans.documents import RETRIED, new_document
from app.features.scans.errors import TooManyDocumentsError
from app.features.scans.limits import DOCUMENTS_MAX
from app.state.files import ArrivingFile
from app.state.job_documents import NewJob
from app.state.keyed import Keyed
from app.state.kit import StateKit
from app.state.mongo import ClientSession, Document
from app.state.principals import Principal

COLLECTION: Final = "scans"
READ: Final = "scans.read"
"""Job {scan_id}: read a document."""
_UNREAD: Final = {"text": 0}


class ScanStore:
    """The documents of all applications. Cheap to make."""

    def __init__(self, kit: StateKit) -> None:
        """Take from the kit what it needs."""
        self._mongo = kit.mongo
        self._clock = kit.clock
        self._jobs = kit.jobs
        self._files = kit.files
        self._idempotency = kit.idempotency
        self._rows = kit.mongo.collection(COLLECTION)

    async def add(
        self,
        caller: Principal,
        application_id: str,
        file: ArrivingFile,
        name: str,
        keyed: Keyed[Document] | None,
    ) -> Document:
        """Keep a file as a document of an application and have it read; return the first one of its content.

        Raises TooManyDocumentsError, CrowdedError, what `ArrivingFile.keep` raises, and with a key what
        `Idempotency.run` raises.
        """

        async def work(session: ClientSession) -> Document:
            found = await self._find_same(caller.tenant_id, application_id, file.sha256, session)
            if found is not None:
                return found
            mine = {"application_id": application_id, "tenant_id": caller.tenant_id}
            number = 1 + await self._rows.count_documents(mine, session=session)
            if number > DOCUMENTS_MAX:
                raise TooManyDocumentsError
            document = new_document(
                caller=caller,
                application_id=application_id,
                number=number,
                name=name,
                file=await file.keep(session),
                job_id=new_id("job"),
                now=to_the_millisecond(self._clock.now()),
            )
            await self._rows.insert_one(document, session=session)
            await self._jobs.enqueue(_reading_of(document), session=session)
            return document

        async with self._files.turn(application_id):
            while True:
                try:
                    return await self._idempotency.run(keyed, work)
                except DuplicateKeyError:  # another replica was quicker with this file, or with this number
                    continue

    async def get(self, tenant_id: str, application_id: str, document_id: str) -> Document:
        """Return a document of an application. Raises NotFoundError."""
        document = await self.find(tenant_id, document_id)
        if document is None or document["application_id"] != application_id:
            raise NotFoundError
        return document

    async def find(self, tenant_id: str, document_id: str) -> Document | None:
        """Return a document of the tenant."""
        async with self._mongo.guard("scans.find"):
            return await self._rows.find_one({"_id": document_id, "tenant_id": tenant_id})

    async def of_application(
        self, tenant_id: str, application_id: str, *, session: ClientSession = None
    ) -> list[Document]:
        """Return the documents of an application in the order that they came in, without their text."""
        mine = {"application_id": application_id, "tenant_id": tenant_id}
        async with self._mongo.guard("scans.of_application"):
            rows = self._rows.find(mine, _UNREAD, session=session)
            return sorted(await rows.to_list(DOCUMENTS_MAX), key=lambda row: int(row["number"]))

    async def begin(self, document: Document) -> None:
        """Say that a document is being read, if it still is as it was found."""
        as_found = {**_identity(document), "state": document["state"]}
        async with self._mongo.guard("scans.begin"):
            await self._rows.update_one(as_found, {"$set": {"state": "reading", "error": None}})

    async def finish(self, document: Document, changes: Document, session: ClientSession) -> None:
        """Write what came of reading a document, in the transaction that completes its job."""
        unread = {**_identity(document), "state": {"$ne": "read"}}
        await self._rows.update_one(unread, {"$set": changes}, session=session)

    async def leave(self, document: Document, changes: Document) -> None:
        """Write why a document can't be read for now, unless somebody else has come further meanwhile."""
        being_read = {**_identity(document), "state": "reading"}
        async with self._mongo.guard("scans.leave"):
            await self._rows.update_one(being_read, {"$set": changes})

    async def _find_same(
        self, tenant_id: str, application_id: str, sha256: str, session: ClientSession
    ) -> Document | None:
        same = {"application_id": application_id, "sha256": sha256, "tenant_id": tenant_id}
        found: Document | None = await self._rows.find_one(same, _UNREAD, session=session)
        return found


def is_over(document: Document) -> bool:
    """Say whether a document needs no reading any more."""
    failed_for_good = document["state"] == "failed" and document["error"]["code"] not in RETRIED
    return document["state"] == "read" or failed_for_good


def _identity(document: Document) -> Document:
    return {"_id": document["_id"], "tenant_id": document["tenant_id"]}


def _reading_of(document: Document) -> NewJob:
    return NewJob(
        READ,
        {"scan_id": document["_id"]},
        id=document["job_id"],
        tenant_id=document["tenant_id"],
        user_id=document["user_id"],
    )
