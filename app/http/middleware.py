"""The outermost edge: what happens to every request before and after anything else.

One plain ASGI application around all others (frameworks' middleware costs a task and a queue a request). It
gives the request an id and the client an address, adds X-Request-ID, X-Replica and X-Response-Time to every
response, counts what is in flight, feeds the metrics by route template, writes one access line, and lets no
exception reach the server: one that escapes would close a kept-alive connection on which the balancer may
already have sent the next request.

X-Forwarded-For is believed only from a peer in the trusted networks, and then its last entry, which that peer
wrote.
"""

import asyncio
import logging
import re
import secrets
from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from starlette.exceptions import HTTPException, WebSocketException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from app.core.clock import Clock
from app.core.errors import CargoFlowError, DrainingError
from app.core.logging import line_writer
from app.core.metrics import Metrics
from app.http.context import RESPONSE_HEADERS_KEY, SCOPE_KEY, RequestContext, current
from app.http.problems import problem_of, send_problem
from app.http.socket_refusal import SocketExchange

_log = logging.getLogger("cargoflow.http")

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{8,64}")
_MEMO_SIZE: Final = 4096
_PATH_LOGGED_MAX: Final = 300
_CLIENT_GONE: Final = 499
"""What logs and metrics say of a request whose client left before the answer; the status is never sent."""
_NO_RESPONSE: Final = 500

Network = IPv4Network | IPv6Network


class Edge:
    """Wraps the application. `in_flight` is how many HTTP requests it serves right now."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        replica_name: str,
        trusted_networks: Iterable[Network],
        metrics: Metrics,
        clock: Clock,
        draining: asyncio.Event,
    ) -> None:
        """`draining` being set makes responses end their connections, so that the balancer goes elsewhere."""
        self._app = app
        self._metrics = metrics
        self._monotonic_s = clock.monotonic_s
        self._replica_name = replica_name
        self._client_ip = _client_ip_reader(tuple(trusted_networks))
        self.draining = draining
        self.replica_header = (b"x-replica", replica_name.encode())
        self.in_flight = 0
        self._write_access_line = line_writer("cargoflow.access", "request")
        metrics.collect_in_flight(lambda: self.in_flight)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of any kind. For HTTP and WebSockets nothing but cancellation comes out."""
        kind = scope["type"]
        if kind == "http":
            await self._serve_http(scope, receive, send)
        elif kind == "websocket":
            await self._serve_websocket(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _serve_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started_s = self._monotonic_s()
        context = self._open_context(scope)
        exchange = _Exchange(self, scope, send, context, started_s)
        token = current.set(context)
        self.in_flight += 1
        try:
            await self._app(scope, receive, exchange.send)
        except asyncio.CancelledError:
            # Only the server cancels, when the time to drain is over; the client shall still be told.
            await exchange.fail(DrainingError())
        except Exception as error:  # noqa: BLE001  # the last line of defence, see the module's docstring
            _log.exception("edge_error")
            await exchange.fail(error)
        finally:
            self.in_flight -= 1
            self._finish(scope, context, exchange, self._monotonic_s() - started_s)
            current.reset(token)

    async def _serve_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = self._open_context(scope)
        request_id = (b"x-request-id", context.request_id.encode())
        exchange = SocketExchange(scope, send, [request_id, self.replica_header])
        token = current.set(context)
        try:
            await self._app(scope, receive, exchange.send)
        except WebSocketDisconnect:
            context.client_gone = True
        except Exception as error:  # noqa: BLE001  # the same for WebSockets
            if not isinstance(error, CargoFlowError | WebSocketException | HTTPException):
                _log.exception("websocket_error")
            await exchange.end(error)
        finally:
            current.reset(token)

    def _open_context(self, scope: Scope) -> RequestContext:
        request_id = forwarded_for = None
        for name, value in scope["headers"]:
            if name == b"x-request-id":
                request_id = value
            elif name == b"x-forwarded-for":
                forwarded_for = value
        client = scope.get("client")
        context = RequestContext(
            secrets.token_hex(16)
            if request_id is None or _REQUEST_ID.fullmatch(request_id) is None
            else request_id.decode(),
            self._client_ip(client[0] if client else "", forwarded_for),
        )
        scope[SCOPE_KEY] = context
        return context

    def _finish(self, scope: Scope, context: RequestContext, exchange: "_Exchange", seconds: float) -> None:
        status = exchange.status or (_CLIENT_GONE if context.client_gone else _NO_RESPONSE)
        method, template = scope["method"], context.template
        self._metrics.http_request(method, template, status, seconds)
        self._write_access_line(
            {
                "method": method,
                "template": template,
                "path": scope["path"][:_PATH_LOGGED_MAX],
                "status": status,
                "ms": round(seconds * 1000, 2),
                "ip": context.client_ip,
            }
        )


class _Exchange:
    """The response of one request on its way out."""

    __slots__ = ("_context", "_edge", "_is_head", "_scope", "_send", "_started_s", "status")

    def __init__(
        self, edge: Edge, scope: Scope, send: Send, context: RequestContext, started_s: float
    ) -> None:
        self._edge = edge
        self._scope = scope
        self._send = send
        self._context = context
        self._started_s = started_s
        self._is_head = scope["method"] == "HEAD"
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._context.response_started = True
            message = {**message, "headers": self._headers(message.get("headers", ()))}
        elif self._is_head and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await self._send(message)

    def _headers(self, headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        edge = self._edge
        elapsed_ms = (edge._monotonic_s() - self._started_s) * 1000  # noqa: SLF001  # its other half
        complete = [
            *headers,
            (b"x-request-id", self._context.request_id.encode()),
            edge.replica_header,
            (b"x-response-time", b"%.2f" % elapsed_ms),
        ]
        extra = self._scope.get(RESPONSE_HEADERS_KEY)
        if extra is not None:
            complete.extend(extra)
        if edge.draining.is_set():
            complete.append((b"connection", b"close"))
        return complete

    async def fail(self, error: Exception) -> None:
        """Answer with a problem if nothing has been sent; else the server cuts the connection."""
        if self._context.response_started:
            return
        await send_problem(self.send, problem_of(error, self._scope), self._context.request_id)


def _client_ip_reader(trusted: tuple[Network, ...]) -> Callable[[str, bytes | None], str]:
    """Return a function from (peer, X-Forwarded-For) to the client's address; it remembers what it parsed."""

    @lru_cache(maxsize=_MEMO_SIZE)
    def is_trusted(peer: str) -> bool:
        try:
            address = ip_address(peer)
        except ValueError:
            return False
        return any(address in network for network in trusted)

    @lru_cache(maxsize=_MEMO_SIZE)
    def normalised(text: str) -> str | None:
        try:
            address = ip_address(text)
        except ValueError:
            return None
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        return str(mapped or address)

    def client_ip(peer: str, forwarded_for: bytes | None) -> str:
        if forwarded_for is not None and is_trusted(peer):
            last = forwarded_for.rpartition(b",")[2].strip().decode("latin-1")
            return normalised(last) or peer
        return normalised(peer) or peer

    return client_ip
