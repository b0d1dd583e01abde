"""From a request to its route, and from whatever the route raises to a problem.

FastAPI tries its routes one after another, and those of an included router twice: with a hundred routes that
costs more than the rest of the request (measured: 160 µs at the hundredth, 3 µs here). The routes are known
once the application is built, so `RouteTable` keeps them in a tree of path segments: literals before
parameters, and a path that fits two routes goes to the more specific one that has the method. What the tree
can't hold (mounts, converters other than plain text) is asked in order after it.

`Dispatcher` is the innermost ASGI application. For the routes it finds it also answers HEAD where there is
GET, OPTIONS with `Allow`, 405 with every method the path has, and 413 before the body is read (or, for a body
of unknown length, when it gets too long). Errors become problems here and nowhere else; nothing but
cancellation leaves it.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from fastapi.routing import APIRoute, RouteContext, iter_route_contexts
from starlette.convertors import StringConvertor
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.errors import BadRequestError, MethodNotAllowedError, NotFoundError, PayloadTooLargeError
from app.http.context import RequestContext, context_of
from app.http.handler import FastApiHandler, compile_handler
from app.http.problems import problem_of, send_problem
from app.http.routing import BODY_LIMIT_BYTES

_log = logging.getLogger("cargoflow.http")

_SERVER_ERROR: Final = 500


@dataclass(frozen=True, slots=True)
class TableRoute:
    """A route as the tree holds it. `parameters` says which segment of the path has which name."""

    route: BaseRoute
    app: ASGIApp
    endpoint: object
    template: str
    parameters: tuple[tuple[int, str], ...]
    body_limit_bytes: int


@dataclass(slots=True)
class _Node:
    literals: dict[str, "_Node"] = field(default_factory=dict)
    parameter: "_Node | None" = None
    routes: dict[str, TableRoute] = field(default_factory=dict)

    def find(self, segments: list[str], index: int, method: str) -> TableRoute | None:
        if index == len(segments):
            return self.routes.get(method)
        literal = self.literals.get(segments[index])
        found = None if literal is None else literal.find(segments, index + 1, method)
        if found is None and self.parameter is not None and segments[index]:
            return self.parameter.find(segments, index + 1, method)
        return found

    def methods(self, segments: list[str], index: int) -> Iterator[str]:
        if index == len(segments):
            yield from self.routes
            return
        literal = self.literals.get(segments[index])
        if literal is not None:
            yield from literal.methods(segments, index + 1)
        if self.parameter is not None and segments[index]:
            yield from self.parameter.methods(segments, index + 1)


class RouteTable:
    """The routes of an application, by path. Knows nothing of routes added after it was made."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        """Take FastAPI's routes, included routers unfolded."""
        self._root = _Node()
        self.others: list[RouteContext] = []
        for context in iter_route_contexts(list(routes)):
            if _fits(context):
                self._add(context)
            else:
                self.others.append(context)

    def find(self, method: str, path: str) -> tuple[TableRoute, dict[str, str]] | None:
        """Return the route for that method and path, with the path's parameters."""
        segments = path.split("/")
        found = self._root.find(segments, 0, method)
        if found is None:
            if method != "HEAD":
                return None
            found = self._root.find(segments, 0, "GET")
            if found is None:
                return None
        return found, {name: segments[index] for index, name in found.parameters}

    def methods(self, path: str) -> frozenset[str]:
        """Return every method some route has for that path; HEAD where there is GET, OPTIONS everywhere."""
        methods = set(self._root.methods(path.split("/"), 0))
        if methods:
            methods.add("OPTIONS")
        if "GET" in methods:
            methods.add("HEAD")
        return frozenset(methods)

    def _add(self, context: RouteContext) -> None:
        node = self._root
        parameters = []
        for index, segment in enumerate(context.path_format.split("/") if context.path_format else []):
            if segment.startswith("{"):
                parameters.append((index, segment[1:-1]))
                node.parameter = node.parameter or _Node()
                node = node.parameter
            else:
                node = node.literals.setdefault(segment, _Node())
        entry = TableRoute(
            route=context.original_route,
            app=compile_handler(context) or FastApiHandler(context.app),
            endpoint=context.endpoint,
            template=context.path_format or "",
            parameters=tuple(parameters),
            body_limit_bytes=BODY_LIMIT_BYTES if context.max_body_size is None else context.max_body_size,
        )
        for method in context.methods or ():
            node.routes.setdefault(method, entry)


def _fits(context: RouteContext) -> bool:
    if not isinstance(context.original_route, APIRoute):
        return False
    convertors: Mapping[str, object] = context.param_convertors
    plain = all(type(convertor) is StringConvertor for convertor in convertors.values())
    return plain and all(
        segment.count("{") == segment.startswith("{") and ("{" in segment) == segment.endswith("}")
        for segment in (context.path_format or "").split("/")
    )


class Dispatcher:
    """Runs the route a request is for, and answers with a problem when that raises."""

    def __init__(self, routes: Iterable[BaseRoute], router: ASGIApp) -> None:
        """`router` is FastAPI's own, which serves WebSockets and the lifespan."""
        self._table = RouteTable(routes)
        self._router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Raises nothing that a request can cause."""
        if scope["type"] != "http":
            await self._router(scope, receive, send)
            return
        context = context_of(scope)
        try:
            await self._serve(scope, receive, send, context)
        except ClientDisconnect:
            context.client_gone = True
        except Exception as error:  # noqa: BLE001  # every kind of error has a problem, the unknown ones a bare 500
            await _answer(error, scope, send, context)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, context: RequestContext) -> None:
        found = self._table.find(scope["method"], scope["path"])
        if found is None:
            await self._serve_other(scope, receive, send, context)
            return
        route, parameters = found
        context.template = route.template
        scope["path_params"] = parameters
        scope["endpoint"] = route.endpoint
        scope["route"] = route.route
        await route.app(scope, _limited(scope, receive, route.body_limit_bytes), send)

    async def _serve_other(self, scope: Scope, receive: Receive, send: Send, context: RequestContext) -> None:
        methods = self._table.methods(scope["path"])
        if methods:
            allow = ", ".join(sorted(methods))
            if scope["method"] == "OPTIONS":
                await _send_options(send, allow)
                return
            raise MethodNotAllowedError(f"This path takes {allow}.", headers={"Allow": allow})
        for other in self._table.others:
            match, child_scope = other.matches(scope)
            if match is not Match.NONE:
                context.template = other.path or context.template
                scope.update(child_scope)
                serve = FastApiHandler(other.handle)
                await serve(scope, _limited(scope, receive, BODY_LIMIT_BYTES), send)
                return
        raise NotFoundError


def _limited(scope: Scope, receive: Receive, limit_bytes: int) -> Receive:
    """Refuse a body that is too long by its own account, and watch one that doesn't say."""
    watched = False
    for name, value in scope["headers"]:
        if name == b"content-length":
            if not value.isdigit():
                raise BadRequestError("Content-Length must be a number.")
            if int(value) > limit_bytes:
                raise _too_large(limit_bytes)
        elif name == b"transfer-encoding":
            watched = True
    if not watched:
        return receive
    received_bytes = 0

    async def receive_within_limit() -> Message:
        nonlocal received_bytes
        message = await receive()
        received_bytes += len(message.get("body", b""))
        if received_bytes > limit_bytes:
            raise _too_large(limit_bytes)
        return message

    return receive_within_limit


def _too_large(limit_bytes: int) -> PayloadTooLargeError:
    return PayloadTooLargeError(f"The body may have {limit_bytes} bytes at most.")


async def _send_options(send: Send, allow: str) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": [(b"allow", allow.encode())]})
    await send({"type": "http.response.body", "body": b""})


async def _answer(error: Exception, scope: Scope, send: Send, context: RequestContext) -> None:
    problem = problem_of(error, scope)
    if problem.status == _SERVER_ERROR:
        _log.error("unhandled_error", exc_info=error, extra={"template": context.template})
    if context.response_started:
        # The client has a part of another answer. Left unfinished it makes the server cut the connection,
        # which is the one way to tell the client so.
        _log.error("response_cut_short", extra={"template": context.template, "code": problem.code})
        return
    await send_problem(send, problem, context.request_id)
