"""A file in a `multipart/form-data` body, as it arrives: nothing is collected, in memory or on a disk.

    upload = FileUpload(request, field="file", bytes_max=10 * MB)
    async for piece in upload:
        …

Starlette's own form parser writes a file beyond a megabyte to the local disk and hands it over when all of it
is there; this one hands on each piece of the body before it asks for the next, so a slow store slows the
client down, and a request takes up what the server's socket buffer holds (64 KB). Whoever iterates sees the
body to its end: what else it holds is refused then, so nothing should be committed before.

Raises, while it is iterated: UnsupportedMediaTypeError for another kind of body, BadRequestError for one that
is malformed or ends early, ValidationFailedError if the field is missing, empty, no file, there twice or not
alone, PayloadTooLargeError, ClientDisconnect.
"""

import re
from collections.abc import AsyncIterator
from typing import Final

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.core.errors import (
    BadRequestError,
    PayloadTooLargeError,
    UnsupportedMediaTypeError,
    ValidationFailedError,
)
from app.http.validation import refused

AROUND_MAX_BYTES: Final = 64 * 1024
"""What boundaries, headers and the like may add to the file: for the route's `max_body_size`."""
NAME_MAX_CHARACTERS: Final = 120
_NOT_IN_A_NAME: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")


class FileUpload:
    """The one file of a request, to be iterated once. `name` is known when the first piece is there."""

    def __init__(self, request: Request, *, field: str, bytes_max: int) -> None:
        """Nothing is read yet."""
        self.name = ""
        """What the client calls the file, made harmless: the last part of a path, NAME_MAX_CHARACTERS."""
        self.length = 0
        self._request = request
        self._field = field
        self._bytes_max = bytes_max
        self._pieces: list[bytes] = []
        self._header = (bytearray(), bytearray())
        self._disposition = b""
        self._files = 0
        self._ended = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the file's bytes."""
        parser = self._parser()
        async for chunk in self._request.stream():
            try:
                parser.write(chunk)
            except FormParserError as error:
                raise _malformed() from error
            for piece in self._pieces:
                yield piece
            self._pieces.clear()
        if not self._ended:
            raise _malformed()
        if not self._files:
            raise self._wrong("is missing")
        if not self.length:
            raise self._wrong("is empty")

    def _parser(self) -> MultipartParser:
        try:
            return MultipartParser(
                self._boundary(),
                {
                    "on_part_begin": self._on_part_begin,
                    "on_header_begin": self._on_header_begin,
                    "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": self._on_part_data,
                    "on_end": self._on_end,
                },
            )
        except FormParserError as error:  # a boundary that is too long
            raise _malformed() from error

    def _boundary(self) -> bytes:
        kind, options = parse_options_header(self._request.headers.get("content-type"))
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise UnsupportedMediaTypeError(
                "Send the body as multipart/form-data.", headers={"Accept": "multipart/form-data"}
            )
        return options[b"boundary"]

    def _on_part_begin(self) -> None:
        self._disposition = b""

    def _on_header_begin(self) -> None:
        self._header = (bytearray(), bytearray())

    def _on_header_end(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = bytes(value)

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition.decode("latin-1"))
        field = _text(options.get(b"name", b""))
        if field != self._field:
            raise refused(
                [{"field": field[:NAME_MAX_CHARACTERS] or "body", "message": "is not a field here"}]
            )
        if b"filename" not in options:
            raise self._wrong("must be a file")
        self._files += 1
        if self._files > 1:
            raise self._wrong("must be one file")
        self.name = _harmless(_text(options[b"filename"]))

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.length += end - start
        if self.length > self._bytes_max:
            raise PayloadTooLargeError(f"A file may have {self._bytes_max} bytes at most.")
        self._pieces.append(data[start:end])

    def _on_end(self) -> None:
        self._ended = True

    def _wrong(self, message: str) -> ValidationFailedError:
        return refused([{"field": self._field, "message": message}])


def _malformed() -> BadRequestError:
    return BadRequestError("The body is not well-formed multipart/form-data.")


def _text(raw: bytes) -> str:
    """Return a name as browsers send it, in UTF-8."""
    return raw.decode("utf-8", errors="replace")


def _harmless(name: str) -> str:
    return _NOT_IN_A_NAME.sub("", re.split(r"[/\\]", name)[-1]).strip()[:NAME_MAX_CHARACTERS]
