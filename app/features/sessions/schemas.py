"""Bodies of the sessions routes."""

from typing import Annotated

from pydantic import ConfigDict, Field

from app.core.moments import Timestamp
from app.http.schemas import JsonObject, ResponseModel, StrictModel
from app.state.session_documents import TTL_MAX_S, TTL_MIN_S, SessionType

_EXAMPLE_DATA: JsonObject = {"items": [{"sku": "pallet-eur", "quantity": 2}], "step": 1}

NamedVersion = Annotated[int, Field(strict=True, ge=1)]
Data = Annotated[JsonObject, Field(examples=[_EXAMPLE_DATA])]


class _DataModel(StrictModel):
    """A body that carries the client's own data: kept to the letter, spaces and all."""

    model_config = ConfigDict(str_strip_whitespace=False)


class NewSession(_DataModel):
    """A session of the caller's own."""

    type: SessionType
    data: Data
    """A JSON object, at most 64 KB."""
    ttl_seconds: Annotated[int, Field(strict=True, ge=TTL_MIN_S, le=TTL_MAX_S)] | None = None
    """How long it lives after its last access; unless given, as its type does."""


class SessionData(_DataModel):
    """What a session shall hold."""

    data: Data
    """A JSON object, at most 64 KB."""
    version: NamedVersion | None = None
    """The version this change was made on; another current one is `409 version_conflict`."""


class SessionPatch(_DataModel):
    """What to change about a session's data."""

    data: Annotated[JsonObject, Field(examples=[{"step": 2, "coupon": None}])]
    """A JSON Merge Patch (RFC 7396): members replace, objects merge, `null` removes."""
    version: NamedVersion | None = None
    """The version this change was made on; another current one is `409 version_conflict`."""


class SessionOut(ResponseModel):
    """A session as of its `version`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "ses_4TFxkQm7JYpZr2sVnW8aBc",
                    "type": "cart",
                    "data": _EXAMPLE_DATA,
                    "version": 1,
                    "created_at": "2026-01-31T10:00:00.000Z",
                    "last_accessed_at": "2026-01-31T10:00:00.000Z",
                    "expires_at": "2026-02-07T10:00:00.000Z",
                }
            ]
        }
    )

    id: str
    type: SessionType
    data: JsonObject
    version: int
    """Counts changes of the data; an access that only extends the session does not move it."""
    created_at: Timestamp
    last_accessed_at: Timestamp
    """The last access that was recorded: not every read is."""
    expires_at: Timestamp
    """When it ends unless it is accessed before."""
