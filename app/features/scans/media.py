"""What a file is, by its first bytes. Pure: names and headers of the client's say nothing."""

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

MediaType: TypeAlias = Literal["application/pdf", "image/png", "image/jpeg"]

HEAD_BYTES: Final = 8
"""How much of a file it takes to tell."""
_BEGINNINGS: Final[Mapping[bytes, MediaType]] = {
    b"%PDF-": "application/pdf",
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
}
ENDINGS: Final[Mapping[str, str]] = {"application/pdf": "pdf", "image/png": "png", "image/jpeg": "jpg"}


def media_type_of(head: bytes) -> MediaType | None:
    """Return what a file that begins like this is; None if it is none of what is taken."""
    return next((kind for beginning, kind in _BEGINNINGS.items() if head.startswith(beginning)), None)
