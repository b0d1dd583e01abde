"""What a document is, as it is answered."""

from typing import Any, Final

from pydantic import ConfigDict

from app.core.moments import Timestamp
from app.features.scans.documents import State
from app.features.scans.fields import Basis, Name
from app.features.scans.media import MediaType
from app.http.schemas import Money, ResponseModel

UPLOAD: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "additionalProperties": False,
                    "properties": {
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": "A PDF of up to 20 pages, a PNG or a JPEG; 10 MB.",
                        }
                    },
                },
                "encoding": {"file": {"contentType": "application/pdf, image/png, image/jpeg"}},
            }
        },
    }
}
"""`openapi_extra` of the upload. FastAPI's own declaration of a file would have it read whole beforehand."""

_EXAMPLE: Final[dict[str, Any]] = {
    "document_id": "doc_4TFxkQm7JYpZr2sVnW8aBc",
    "job_id": "job_9KpLmN3qRsTuVwXyZa1BcD",
}


class Received(ResponseModel):
    """A document that is here and will be read."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    document_id: str
    job_id: str
    """The job that reads it: `GET /jobs/{id}`."""


class FieldOut(ResponseModel):
    """Something a document says."""

    name: Name
    value: str | Money
    """A name, a number, a date (`2026-01-31`), or an amount."""
    basis: Basis | None
    """What it is the company, the amount or the date of; null if the document doesn't say."""
    text: str
    """The row it stands in, as it was read."""
    page: int
    confidence: float
    """0 to 1: how sure the engine is of the letters, times how sure the rule is of their meaning."""


class MismatchOut(ResponseModel):
    """What the document says otherwise than the applicant."""

    field: str
    """Of the application."""
    stated: str | Money
    found: str | Money
    confidence: float
    page: int


class ReadingError(ResponseModel):
    """Why a document could not be read."""

    code: str
    """Stable: encrypted, damaged, no_pages, too_many_pages, too_many_pixels, too_complex, engine_missing,
    interrupted.
    """
    detail: str


class ScanOut(ResponseModel):
    """A document of an application."""

    id: str
    application_id: str
    name: str
    """What the client called the file; empty if it didn't."""
    media_type: MediaType
    """By its content."""
    bytes: int
    sha256: str
    state: State
    """queued, reading, then read or failed."""
    pages: int
    job_id: str
    user_id: str
    """Who handed it in."""
    fields: list[FieldOut]
    confirmed: list[str]
    """Fields of the application that the document says as well."""
    mismatches: list[MismatchOut]
    error: ReadingError | None
    created_at: Timestamp
    read_at: Timestamp | None


class ScanTextOut(ScanOut):
    """A document with its text."""

    text: str
    text_cut: bool
    """Whether there was more text than is kept."""
