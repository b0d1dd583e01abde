"""What a worker does for documents: reads them, a process each, one at a time.

A document that can't be read is an answer: the document is `failed`, and the job completed. Where it is not
the document's fault (no engine, a reader that is killed again and again) the job goes to the dead letter, to
be retried when the cause is mended, and the document says so meanwhile.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from app.core.moments import to_the_millisecond
from app.features.credit.service import SCORE
from app.features.credit.store import ApplicationStore
from app.features.scans.documents import failed_now, read_now
from app.features.scans.reading import (
    EngineMissingError,
    ReadingInterruptedError,
    UnreadableError,
    read,
)
from app.features.scans.store import READ, ScanStore, is_over
from app.state.job_documents import NewJob
from app.state.job_run import GiveUpError, Handler, Run
from app.state.kit import StateKit
from app.state.mongo import ClientSession, Document

_INTERRUPTIONS_MAX: Final = 3
"""After so many tries in vain the file may well be the reason."""
_TIMEOUT_S: Final = 240.0
"""Above what a reading may take."""


def handlers(kit: StateKit) -> list[Handler]:
    """Return the handlers of this feature. One document at a time: reading one keeps a core busy."""
    return [Handler(READ, partial(_read, kit), timeout_s=_TIMEOUT_S, concurrency=1)]


async def _read(kit: StateKit, run: Run) -> Mapping[str, Any] | None:
    """Read a document. What comes of it is committed with the completion of the job: once."""
    store, tenant_id = ScanStore(kit), run.job.tenant_id
    document = await store.find(tenant_id, run.job.payload["scan_id"])
    if document is None or is_over(document):
        return None if document is None else _result(document)
    application = await ApplicationStore(kit).get({"tenant_id": tenant_id}, document["application_id"])
    await store.begin(document)
    try:
        changes = await _looked_at(kit, document, application)
    except EngineMissingError as error:
        await store.leave(document, failed_now("engine_missing", kit.clock.now()))
        raise GiveUpError(str(error)) from error
    except ReadingInterruptedError as error:
        if run.job.attempts + 1 < _INTERRUPTIONS_MAX:
            raise
        await store.leave(document, failed_now("interrupted", kit.clock.now()))
        raise GiveUpError(str(error)) from error

    async def work(session: ClientSession) -> None:
        await store.finish(document, changes, session)
        if changes["state"] == "read":
            await kit.jobs.enqueue(_scoring_of(application), session=session)

    await run.commit(work, result=_result({**document, **changes}))
    return None


async def _looked_at(kit: StateKit, document: Document, application: Document) -> Document:
    """Return what to set in the document. Raises EngineMissingError, ReadingInterruptedError."""
    file = await kit.files.get(document["tenant_id"], document["file_id"])
    try:
        reading = await read(file.media_type, kit.files.read(file))
    except UnreadableError as error:
        return failed_now(error.code, to_the_millisecond(kit.clock.now()))
    return read_now(reading, application, to_the_millisecond(kit.clock.now()))


def _result(document: Document) -> dict[str, Any]:
    error = document["error"]
    return {
        "document_id": document["_id"],
        "state": document["state"],
        "fields": len(document["fields"]),
        "mismatches": len(document["mismatches"]),
        "error": None if error is None else error["code"],
    }


def _scoring_of(application: Document) -> NewJob:
    return NewJob(
        SCORE,
        {"application_id": application["_id"]},
        tenant_id=application["tenant_id"],
        user_id=application["user_id"],
    )
