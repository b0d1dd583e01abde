"""One write a response.

uvicorn writes a response's head and its body separately, and uvloop sends every write at once. A replica that
is killed between the two leaves the client half an answer, which no balancer can retry; and the second system
call costs 15 µs. So writes of one turn of the event loop are held back until its end and leave together.

Does not hold for streams, whose parts belong to different turns, nor for bodies so large that the kernel
takes them in pieces.
"""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.core.errors import BadRequestError
from app.http.problems import MEDIA_TYPE, problem_of

_HOLD_MAX_BYTES: Final = 64 * 1024
"""What is larger goes out at once: copying it together would cost more than a system call."""


class HoldingTransport:
    """A transport that holds writes until the end of the event loop's turn. All else goes through."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        """`transport` is the real one."""
        self.real = transport
        self._loop = loop
        self._held: list[bytes] = []
        self._held_bytes = 0

    def __getattr__(self, name: str) -> Any:
        """Everything that is not about writing is the real transport's."""
        return getattr(self.real, name)

    def write(self, data: bytes) -> None:
        """Hold `data`, or send it with what is held if that has become much."""
        if not self._held:
            self._loop.call_soon(self._release)
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > _HOLD_MAX_BYTES:
            self._release()

    def close(self) -> None:
        """Send what is held and close."""
        self._release()
        self.real.close()

    def _release(self) -> None:
        if not self._held:
            return
        held, self._held, self._held_bytes = self._held, [], 0
        if not self.real.is_closing():
            self.real.writelines(held)


class ReplicaProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol over a HoldingTransport; broken HTTP is answered with a problem too."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Put our transport between the protocol and the real one."""
        super().connection_made(HoldingTransport(transport, self.loop))  # type: ignore[arg-type]

    def handle_websocket_upgrade(self) -> None:
        """Hand the real transport to the WebSocket's protocol, which writes whole frames."""
        if isinstance(self.transport, HoldingTransport):
            self.transport = self.transport.real
        super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, and close."""
        body = problem_of(BadRequestError(msg), {}).body("")
        head = (
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head % (MEDIA_TYPE, len(body)) + body)
        self.transport.close()
