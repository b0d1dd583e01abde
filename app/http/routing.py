"""`ApiRouter`: what features declare their routes with.

    router = ApiRouter(prefix="/sessions", tags=["Sessions"])

    @router.get("/{session_id}", summary="Read a session")
    async def read(session_id: str, admitted: …) -> SessionOut: …

It is FastAPI's router. Handlers and their dependencies are coroutines; a dependency that is a plain function
is called in place and must not block. Dependencies run before the body is read (see `handler`). It adds: JSON
bodies are read strictly (`json_body`), a body of another type is a 415, and the OpenAPI document says that
errors are problems. `openapi_extra=PUBLIC` marks a route that takes no credential; `max_body_size=10 * MB`
lets a route take a larger body than BODY_LIMIT_BYTES, which the dispatcher enforces.
"""

from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi import APIRouter, params
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from app.http.json_request import JsonRequest

MB: Final = 1024 * 1024
BODY_LIMIT_BYTES: Final = MB
"""What a request's body may weigh unless its route says otherwise."""
PUBLIC: Final[dict[str, Any]] = {"security": []}
"""`openapi_extra` of a route that takes no credential."""

_PROBLEM_CONTENT: Final = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
PROBLEM_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    "4XX": {"description": "The request can't be served as it is.", "content": _PROBLEM_CONTENT},
    "5XX": {"description": "The service can't answer right now.", "content": _PROBLEM_CONTENT},
}

RouteHandler = Callable[[Request], Coroutine[Any, Any, Response]]


class ApiRoute(APIRoute):
    """A route that reads its JSON body strictly, before FastAPI does."""

    def get_route_handler(self) -> RouteHandler:
        """Return FastAPI's handler, behind the strict reading where the route takes a JSON body."""
        handle = super().get_route_handler()
        if self.body_field is None or isinstance(self.body_field.field_info, params.Form):
            return handle

        async def handle_json(request: Request) -> Response:
            strict = JsonRequest(request.scope, request.receive)
            if await strict.has_json():
                await strict.json()
            return await handle(strict)

        return handle_json


class ApiRouter(APIRouter):
    """FastAPI's router with strict JSON bodies and documented problems."""

    def __init__(self, **options: Any) -> None:
        """Take FastAPI's options."""
        options.setdefault("route_class", ApiRoute)
        options["responses"] = {**PROBLEM_RESPONSES, **options.get("responses", {})}
        super().__init__(**options)
