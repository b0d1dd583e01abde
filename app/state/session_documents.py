"""What an application session is: its types, its bounds, and its three shapes.

- In MongoDB, `sessions`: {_id ses_…, tenant_id, user_id, type, slot, data, ttl_s, version, created_at,
  last_accessed_at, expires_at}. `data` is JSON text: it belongs to the client and is only ever read whole,
  and as text every key and number comes back as it was sent, whatever BSON would make of it.
- In Redis, the hot copy: `body` is the answer to a GET, byte for byte; `head` is the JSON array [version,
  expires_at in ms, ttl_s, type], what a read must know without looking into the body.
- In here, a `Session`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Literal, Self, get_args

import orjson

from app.core.errors import PayloadTooLargeError, ValidationFailedError
from app.core.moments import timestamp, to_milliseconds
from app.state import keys
from app.state.hot import HotCopy, HotRead

SessionType = Literal["booking_draft", "user_session", "temp_data", "cart", "preferences"]
SESSION_TYPES: tuple[SessionType, ...] = get_args(SessionType)

_HOUR_S = 3600
_DAY_S = 24 * _HOUR_S
DEFAULT_TTL_S: Mapping[SessionType, int] = {
    "booking_draft": 7 * _DAY_S,
    "user_session": 2 * _HOUR_S,
    "temp_data": _HOUR_S,
    "cart": 7 * _DAY_S,
    "preferences": 365 * _DAY_S,
}
TTL_MIN_S = 10
TTL_MAX_S = 366 * _DAY_S
EXTEND_SHARE = 0.1
"""A session is extended on access once this share of its time to live is spent: no write per read."""
DATA_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose it is. In every query, and in the name of every copy."""

    tenant_id: str
    user_id: str

    @property
    def filter(self) -> dict[str, str]:
        """The part of a query that keeps others' documents out."""
        return {"tenant_id": self.tenant_id, "user_id": self.user_id}


@dataclass(frozen=True, slots=True)
class Reading:
    """A session as it is answered: the body to send, and what the edge must know of it."""

    body: bytes
    version: int
    type: SessionType


@dataclass(frozen=True)
class Session:
    """A session as stored. `json` is its data as JSON text."""

    id: str
    type: SessionType
    json: bytes
    version: int
    ttl_s: int
    created_at: datetime
    last_accessed_at: datetime
    expires_at: datetime

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Read a document of `sessions`."""
        return cls(
            id=document["_id"],
            type=document["type"],
            json=document["data"].encode(),
            version=document["version"],
            ttl_s=document["ttl_s"],
            created_at=document["created_at"],
            last_accessed_at=document["last_accessed_at"],
            expires_at=document["expires_at"],
        )

    @classmethod
    def from_copy(cls, found: HotRead) -> Self:
        """Read a hot copy that is a hit."""
        version, _, ttl_s, session_type = orjson.loads(found.head)
        answer = orjson.loads(found.body)
        return cls(
            id=answer["id"],
            type=session_type,
            json=orjson.dumps(answer["data"]),
            version=version,
            ttl_s=ttl_s,
            created_at=datetime.fromisoformat(answer["created_at"]),
            last_accessed_at=datetime.fromisoformat(answer["last_accessed_at"]),
            expires_at=datetime.fromisoformat(answer["expires_at"]),
        )

    @property
    def data(self) -> dict[str, Any]:
        """The data, decoded anew each time: change it freely, the session stays as it is."""
        decoded: dict[str, Any] = orjson.loads(self.json)
        return decoded

    @cached_property
    def body(self) -> bytes:
        """The answer that shows this session: rendered once, for the client and for the copy."""
        return orjson.dumps(
            {
                "id": self.id,
                "type": self.type,
                "data": orjson.Fragment(self.json),
                "version": self.version,
                "created_at": timestamp(self.created_at),
                "last_accessed_at": timestamp(self.last_accessed_at),
                "expires_at": timestamp(self.expires_at),
            }
        )

    @property
    def reading(self) -> Reading:
        """The same as an answer."""
        return Reading(self.body, self.version, self.type)

    @property
    def extended_from(self) -> datetime:
        """When an access is due to move the end on."""
        return self.last_accessed_at + timedelta(seconds=self.ttl_s * EXTEND_SHARE)

    def document(self, owner: Owner, slot: int) -> dict[str, Any]:
        """Return what to insert."""
        return {
            "_id": self.id,
            **owner.filter,
            "type": self.type,
            "slot": slot,
            "data": self.json.decode(),
            "ttl_s": self.ttl_s,
            "version": self.version,
            "created_at": self.created_at,
            "last_accessed_at": self.last_accessed_at,
            "expires_at": self.expires_at,
        }

    def copy(self, now: datetime) -> HotCopy:
        """Return the hot copy, to be stored now."""
        head = (self.version, to_milliseconds(self.expires_at), self.ttl_s, self.type)
        return HotCopy(
            orjson.dumps(head),
            self.body,
            life_ms=to_milliseconds(self.expires_at) - to_milliseconds(now),
            touch_in_ms=max(1, to_milliseconds(self.extended_from) - to_milliseconds(now)),
        )


def head_of(found: HotRead) -> tuple[int, int, SessionType]:
    """Return version, end in ms since 1970, and type, from a copy's head alone."""
    version, expires_at_ms, _, session_type = orjson.loads(found.head)
    return version, expires_at_ms, session_type


def encode_data(data: dict[str, Any]) -> bytes:
    """Return data as JSON text.

    Raises PayloadTooLargeError above DATA_MAX_BYTES, ValidationFailedError for what JSON can't say.
    """
    try:
        encoded = orjson.dumps(data)
    except TypeError as error:
        raise ValidationFailedError(
            "The data can't be written as JSON.", errors=[{"field": "data", "message": str(error)}]
        ) from None
    if len(encoded) > DATA_MAX_BYTES:
        raise PayloadTooLargeError(
            f"A session's data may take {DATA_MAX_BYTES} bytes as JSON; this would take {len(encoded)}."
        )
    return encoded


def hot_name(owner: Owner, session_id: str) -> str:
    """Name of a session's hot copy."""
    return keys.owned_name("session", owner.tenant_id, owner.user_id, session_id)
