"""A document as it is stored and as it is shown.

Document in `scans`: {_id doc_…, tenant_id, application_id, number, user_id, name, media_type, bytes, sha256,
file_id, job_id, state, text, cut, pages, fields [{name, value, basis, text, page, confidence}], confirmed
[field], mismatches [{field, stated, found, confidence, page}], error {code, detail} or null, created_at,
read_at}.

`number` counts the documents of an application from 1; `file_id` names the file in `state.files`. States:

    queued ──► reading ──► read
                  └──────► failed

A document that failed because of the service (RETRIED) can be read again, by a retry of its job. What was
read never changes; `fields`, `confirmed`, `mismatches` and `text` are there from the start, and empty.
"""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias

from app.core.ids import new_id
from app.core.moments import timestamp
from app.features.scans.comparison import compare
from app.features.scans.reading import Reading
from app.features.scans.verdicts import SENTENCES
from app.state.files import StoredFile
from app.state.mongo import Document
from app.state.principals import Principal

State: TypeAlias = Literal["queued", "reading", "read", "failed"]
RETRIED: Final = frozenset({"engine_missing", "interrupted"})
"""Codes of failures that are not the document's."""
NOTHING_READ: Final[Mapping[str, Any]] = {
    "text": "", "cut": False, "pages": 0, "fields": [], "confirmed": [], "mismatches": [], "error": None,
    "read_at": None,
}  # fmt: skip
_SHOWN: Final = (
    "application_id",
    "name",
    "media_type",
    "bytes",
    "sha256",
    "state",
    "pages",
    "job_id",
    "user_id",
)


def new_document(
    *,
    caller: Principal,
    application_id: str,
    number: int,
    name: str,
    file: StoredFile,
    job_id: str,
    now: datetime,
) -> Document:
    """Return the document of a file that was handed in now."""
    return {
        "_id": new_id("doc"),
        "tenant_id": caller.tenant_id,
        "application_id": application_id,
        "number": number,
        "user_id": caller.user_id,
        "name": name,
        "media_type": file.media_type,
        "bytes": file.length,
        "sha256": file.sha256,
        "file_id": file.id,
        "job_id": job_id,
        "state": "queued",
        **NOTHING_READ,
        "created_at": now,
    }


def read_now(reading: Reading, application: Mapping[str, Any], now: datetime) -> Document:
    """Return what to set once a document was read."""
    found = compare(reading.fields, application)
    rows = "\n\n".join("\n".join(row.text for row in page.rows) for page in reading.pages)
    return {
        **NOTHING_READ,
        "state": "read",
        "text": rows,
        "cut": reading.cut,
        "pages": len(reading.pages),
        "fields": [field.to_wire() for field in reading.fields],
        "confirmed": list(found.confirmed),
        "mismatches": [asdict(mismatch) for mismatch in found.mismatches],
        "read_at": now,
    }


def failed_now(code: str, now: datetime) -> Document:
    """Return what to set once it is known that a document can't be read."""
    error = {"code": code, "detail": SENTENCES[code]}
    return {**NOTHING_READ, "state": "failed", "error": error, "read_at": now}


def shown(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document as it is listed."""
    read_at = document["read_at"]
    return {
        "id": document["_id"],
        **{name: document[name] for name in _SHOWN},
        "fields": document["fields"],
        "confirmed": document["confirmed"],
        "mismatches": document["mismatches"],
        "error": document["error"],
        "created_at": timestamp(document["created_at"]),
        "read_at": None if read_at is None else timestamp(read_at),
    }


def shown_with_text(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document as it is answered by itself."""
    return {**shown(document), "text": document["text"], "text_cut": document["cut"]}
