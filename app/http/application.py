"""`Api`: FastAPI for declaring routes and for OpenAPI, with our own way from the socket to the route.

FastAPI's stack around the router (error middleware that re-raises, telemetry, two exception layers) is
replaced by `Edge` outside and `Dispatcher` inside; middleware added in between, such as CORS, works as ever.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import orjson
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from app.core.clock import Clock
from app.core.metrics import Metrics
from app.core.settings import Settings
from app.core.version import VERSION
from app.http.dispatch import Dispatcher
from app.http.middleware import Edge
from app.http.openapi import DESCRIPTION, TAGS, TITLE, complete, operation_id

_CORS_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_CORS_REQUEST_HEADERS: Final = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-Match",
    "Last-Event-ID",
    "X-API-Key",
    "X-Request-ID",
)
_CORS_RESPONSE_HEADERS: Final = (
    "ETag",
    "Idempotent-Replayed",
    "Location",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "X-Cache",
    "X-Replica",
    "X-Request-ID",
    "X-Response-Time",
    "X-Run-ID",
)
_CORS_MAX_AGE_S: Final = 600


class Api(FastAPI):
    """The application of one replica.

    `state.draining` is an asyncio.Event: set once the process was told to stop, for whoever holds connections
    open. Routes are indexed when the first request comes in; those added later are not served.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        metrics: Metrics,
        clock: Clock,
        lifespan: Callable[[Any], AbstractAsyncContextManager[None]],
    ) -> None:
        """Make an application without routes; `lifespan` opens and closes what they need."""
        super().__init__(
            title=TITLE,
            description=DESCRIPTION,
            version=VERSION,
            openapi_tags=TAGS,
            servers=[{"url": "/"}],
            openapi_url=None,
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
            lifespan=lifespan,
            generate_unique_id_function=operation_id,
        )
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._openapi_json: bytes | None = None
        self.state.settings = settings
        self.state.metrics = metrics
        self.state.draining = asyncio.Event()
        if settings.cors_origin:
            self.add_middleware(
                CORSMiddleware,
                allow_origins=settings.cors_origin,
                allow_credentials=True,
                allow_methods=_CORS_METHODS,
                allow_headers=_CORS_REQUEST_HEADERS,
                expose_headers=_CORS_RESPONSE_HEADERS,
                max_age=_CORS_MAX_AGE_S,
            )

    def build_middleware_stack(self) -> ASGIApp:
        """Put the edge around the added middleware around the dispatcher."""
        stack: ASGIApp = Dispatcher(self.routes, self.router)
        for layer, arguments, options in reversed(self.user_middleware):
            stack = layer(stack, *arguments, **options)
        return Edge(
            stack,
            replica_name=self._settings.replica_name,
            trusted_networks=self._settings.trusted_networks,
            metrics=self._metrics,
            clock=self._clock,
            draining=self.state.draining,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection, without FastAPI's own telemetry around it."""
        if self.middleware_stack is None:
            self.middleware_stack = self.build_middleware_stack()
        scope["app"] = self
        await self.middleware_stack(scope, receive, send)

    async def openapi_json(self) -> bytes:
        """Return the OpenAPI document as JSON; it is made once, in a thread, since that takes a while."""
        if self._openapi_json is None:
            self._openapi_json = orjson.dumps(await asyncio.to_thread(self.openapi))
        return self._openapi_json

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document, with what all routes share added."""
        return complete(super().openapi())
