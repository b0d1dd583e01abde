"""A file on its way out: a piece at a time, never to be shown or sniffed by a browser."""

from collections.abc import AsyncIterator
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

HEADERS: Final = {
    "Cache-Control": "private, no-store",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
}


class Download(Response):
    """An attachment of known length. `pieces` is asked for one when the one before has been sent.

    What `pieces` raises ends the connection: the client sees that the length is not reached.
    """

    def __init__(self, pieces: AsyncIterator[bytes], *, media_type: str, length: int, name: str) -> None:
        """`name` is what the file is saved as; plain ASCII without quotes."""
        disposition = f'attachment; filename="{name}"'
        super().__init__(
            media_type=media_type,
            headers={**HEADERS, "Content-Length": str(length), "Content-Disposition": disposition},
        )
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; for HEAD, the headers alone."""
        del receive
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if scope["method"] != "HEAD":
            async for piece in self._pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
