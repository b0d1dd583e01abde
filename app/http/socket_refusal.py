"""How a WebSocket ends when something raises: a problem before the handshake, a close code after it."""

from typing import Final

from starlette.exceptions import WebSocketException
from starlette.types import Message, Scope, Send

from app.http.context import context_of
from app.http.problems import Problem, problem_of

_DENIAL_EXTENSION: Final = "websocket.http.response"
_POLICY_VIOLATION: Final = 1008
_INTERNAL_ERROR: Final = 1011
_SERVER_ERROR: Final = 500


class SocketExchange:
    """Watches what the application sends, to know which ending is still possible."""

    def __init__(self, scope: Scope, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        """`headers` go onto a refused handshake."""
        self._scope = scope
        self._send = send
        self._headers = headers
        self._accepted = False
        self._closed = False

    async def send(self, message: Message) -> None:
        """Pass a message on."""
        kind = message["type"]
        self._accepted = self._accepted or kind == "websocket.accept"
        self._closed = self._closed or kind in ("websocket.close", "websocket.http.response.start")
        await self._send(message)

    async def end(self, error: Exception) -> None:
        """Tell the client about `error` as well as the connection's state allows."""
        if self._closed:
            return
        problem = problem_of(error, self._scope)
        if not self._accepted and _DENIAL_EXTENSION in self._scope.get("extensions", {}):
            await self._deny(problem)
            return
        code = _INTERNAL_ERROR if problem.status >= _SERVER_ERROR else _POLICY_VIOLATION
        if isinstance(error, WebSocketException):
            code = error.code
        await self.send({"type": "websocket.close", "code": code, "reason": problem.code})

    async def _deny(self, problem: Problem) -> None:
        body = problem.body(context_of(self._scope).request_id)
        headers = problem.raw_headers(body) + self._headers
        await self.send(
            {"type": "websocket.http.response.start", "status": problem.status, "headers": headers}
        )
        await self.send({"type": "websocket.http.response.body", "body": body})
