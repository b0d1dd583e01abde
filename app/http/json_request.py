"""A request whose JSON body is read strictly, whoever asks for it."""

from typing import Any

from starlette.requests import ClientDisconnect, Request

from app.core.errors import UnsupportedMediaTypeError
from app.http import json_body


class JsonRequest(Request):
    """Starlette's request with `json()` as `json_body` understands JSON."""

    async def body(self) -> bytes:
        """Return the whole body. Raises ClientDisconnect when the client leaves first."""
        if not hasattr(self, "_body"):
            chunks = []
            more = True
            while more:
                message = await self.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                chunks.append(message.get("body", b""))
                more = message.get("more_body", False)
            self._stream_consumed = True
            self._body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        return self._body

    async def json(self) -> Any:
        """Return the body's value. Raises BadRequestError or ValidationFailedError, see `json_body.parse`."""
        if not hasattr(self, "_json"):
            self._json = json_body.parse(await self.body())
        return self._json

    async def has_json(self) -> bool:
        """Say whether there is a body. Raises UnsupportedMediaTypeError if it claims to be something else."""
        if not await self.body():
            return False
        content_type = self.headers.get("content-type", "")
        media_type = content_type.partition(";")[0].strip().lower()
        if media_type != "application/json" and not (
            media_type.startswith("application/") and media_type.endswith("+json")
        ):
            raise UnsupportedMediaTypeError(
                "Send the body as application/json.", headers={"Accept": "application/json"}
            )
        return True
