"""Moments as they are stored and as they are shown: UTC, to the millisecond, with a `Z`."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import PlainSerializer


def to_the_millisecond(moment: datetime) -> datetime:
    """Return the moment as MongoDB keeps it, so that what is answered is what is stored."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def timestamp(moment: datetime) -> str:
    """Return `2026-01-31T10:00:00.000Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MS = 253402214400000
"""The last day of the year 9999 begins: what is compared with a moment may lie a little behind it."""


def to_milliseconds(moment: datetime) -> int:
    """Return milliseconds since 1970, for cursors."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def from_milliseconds(milliseconds: int) -> datetime:
    """Return the moment; what lies before 1970, or after nearly all of the year 9999,
    becomes the nearest that does not.
    """
    return _EPOCH + timedelta(milliseconds=min(max(milliseconds, 0), _LAST_MS))


Timestamp = Annotated[datetime, PlainSerializer(timestamp, return_type=str)]
"""A field of a response."""
