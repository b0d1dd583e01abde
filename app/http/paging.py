"""Lists by cursor: `?limit=20&cursor=…` in, `{"items": […], "next_cursor": …}` out.

A cursor is the sort position of the last item of a page, so that the next page starts behind it however much
was inserted meanwhile. It is opaque to clients: base64url of JSON, with a check that notices damage and a
cursor of another list. It is not signed and need not be: it only says where to start in what the query may
show anyway.
"""

import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, TypeVar

import orjson
from fastapi import Query

from app.core.errors import ValidationFailedError

LIMIT_MAX: Final = 100
LIMIT_DEFAULT: Final = 20
CURSOR_MAX_CHARACTERS: Final = 512
_CHECK_BYTES: Final = 6

Row = TypeVar("Row")
Position = tuple[str | int, ...]
"""The values a list is sorted by, in order, such as `("2026-01-31T10:00:00Z", "bkg_…")`."""

PageLimit = Annotated[int, Query(ge=1, le=LIMIT_MAX, description="How many items at most.")]
"""Query parameter; give it the default LIMIT_DEFAULT."""
PageCursor = Annotated[
    str | None,
    Query(
        max_length=CURSOR_MAX_CHARACTERS, description="`next_cursor` of the page before; none for the first."
    ),
]
"""Query parameter; give it the default None, and `decode_cursor` its value."""


def encode_cursor(kind: str, position: Position) -> str:
    """Return the cursor for a position in the list called `kind`."""
    payload = orjson.dumps(position)
    return urlsafe_b64encode(_check(kind, payload) + payload).rstrip(b"=").decode()


def decode_cursor(kind: str, cursor: str | None, shape: Sequence[type]) -> Position | None:
    """Return the position that `encode_cursor` was given, or None for the first page.

    `shape` names the type of each value. Raises ValidationFailedError for whatever `encode_cursor` did not
    make for this list.
    """
    if cursor is None:
        return None
    try:
        raw = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        check, payload = raw[:_CHECK_BYTES], raw[_CHECK_BYTES:]
        position = orjson.loads(payload)
    except (NotBase64, UnicodeEncodeError, orjson.JSONDecodeError):
        raise _broken_cursor() from None
    if check != _check(kind, payload) or [type(value) for value in position] != list(shape):
        raise _broken_cursor()
    return tuple(position)


def page_of(
    rows: Sequence[Row], *, limit: int, kind: str, position_of: Callable[[Row], Position]
) -> dict[str, Any]:
    """Return a page of `rows`, of which the query fetched `limit + 1` to learn whether there are more."""
    items = rows[:limit]
    more = len(rows) > limit
    return {"items": items, "next_cursor": encode_cursor(kind, position_of(items[-1])) if more else None}


def _check(kind: str, payload: bytes) -> bytes:
    return hashlib.sha256(kind.encode() + b"\x00" + payload).digest()[:_CHECK_BYTES]


def _broken_cursor() -> ValidationFailedError:
    return ValidationFailedError(
        "The cursor is not one that this list gave out.",
        errors=[{"field": "cursor", "message": "send next_cursor back unchanged, to the same list"}],
    )
