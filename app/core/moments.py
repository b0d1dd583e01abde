"""Moments as they are stored and as they are shown: UTC, to the millisecond, with a `Z`."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import PlainSerializer


def to_the_millisecond(moment: datetime) -> datetime:
    """Return the moment as MongoDB keeps it, so that what is answered is what is stored."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def timestamp(moment: datetime) -> str:
    """Return `2026-01-31T10:00:00.000Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


Timestamp = Annotated[datetime, PlainSerializer(timestamp, return_type=str)]
"""A field of a response."""
