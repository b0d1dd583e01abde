"""An application with sample routes, in process and behind a real socket; nothing here asks a store."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

import httpx
import orjson
import pytest
import uvicorn
from fastapi import Body, File, Query, Request, Response, UploadFile, WebSocket
from fastapi.responses import StreamingResponse
from pydantic import Field
from starlette.requests import ClientDisconnect

from app.core.errors import ForbiddenError, UnauthenticatedError, VersionConflictError
from app.core.logging import JsonFormatter
from app.core.settings import Settings
from app.http.application import Api
from app.http.context import RESPONSE_HEADERS_KEY, client_ip, identify, log_fields
from app.http.etags import IfMatch
from app.http.responses import JsonResponse
from app.http.routing import MB, ApiRouter
from app.http.schemas import Money, StrictModel
from app.main import create_app
from app.serve import Server, bound_socket, server_config
from tests.waiting import until


class Cargo(StrictModel):
    weight_kg: Annotated[float, Field(gt=0)]
    tags: list[str] = Field(default_factory=list)


class Booking(StrictModel):
    cargo: Cargo
    price: Money | None = None
    data: dict[str, Any] = Field(default_factory=dict)
    count: int = 0


@dataclass
class Seen:
    """What the sample routes did, so that a test can say that nothing happened."""

    changes: list[Any] = field(default_factory=list)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: int = 0


def sample_router(seen: Seen) -> ApiRouter:  # noqa: C901  # a list of small routes
    router = ApiRouter(prefix="/api/v1/samples", tags=["Samples"])

    @router.post("", status_code=201)
    async def create(booking: Booking) -> Booking:
        seen.changes.append(booking)
        return booking

    @router.get("")
    async def find(limit: Annotated[int, Query(ge=1, le=100)] = 20) -> dict[str, int]:
        return {"limit": limit}

    @router.post("/anything", status_code=204)
    async def anything(value: Annotated[Any, Body()]) -> None:
        seen.changes.append(value)

    @router.post("/optional")
    async def optional(value: Annotated[Booking | None, Body()] = None) -> JsonResponse:
        return JsonResponse({"given": value is not None})

    @router.post("/large", max_body_size=2 * MB)
    async def large(value: Annotated[Any, Body()]) -> JsonResponse:
        seen.changes.append(value)
        return JsonResponse({"items": len(value)})

    @router.post("/upload", max_body_size=2 * MB)
    async def upload(file: Annotated[UploadFile, File()]) -> JsonResponse:
        seen.changes.append(file.filename)
        return JsonResponse({"bytes": file.size})

    @router.get("/whoami")
    async def whoami(request: Request) -> JsonResponse:
        identify(request, user_id="usr_1", tenant_id="ten_1")
        logging.getLogger("sample").info(
            "asked", extra={"password": "hunter2", "note": "Bearer abcdefghijkl"}
        )
        return JsonResponse({"ip": client_ip(request)})

    @router.get("/forbidden")
    async def forbidden(request: Request) -> None:
        request.scope[RESPONSE_HEADERS_KEY] = [(b"ratelimit", b'"sample";r=1;t=2')]
        raise ForbiddenError("You may not.")

    @router.get("/conflict")
    async def conflict() -> None:
        raise VersionConflictError(current_version=7)

    @router.get("/broken")
    async def broken() -> None:
        raise ZeroDivisionError("secret-detail")

    @router.get("/half-broken")
    async def half_broken() -> Response:
        async def body() -> AsyncIterator[bytes]:
            yield b"the first half"
            raise ZeroDivisionError("secret-detail")

        return StreamingResponse(body())

    @router.get("/unencodable")
    async def unencodable() -> None:
        raise ForbiddenError("half a pair: \ud800", extra={"list": ["\udfff"]})

    @router.get("/gone")
    async def gone() -> None:
        raise ClientDisconnect

    @router.get("/slow")
    async def slow() -> JsonResponse:
        seen.waiting += 1
        await seen.release.wait()
        return JsonResponse({"done": True})

    @router.get("/conditional")
    async def conditional(versions: IfMatch) -> JsonResponse:
        return JsonResponse({"versions": None if versions is None else sorted(versions)})

    @router.get("/{sample_id}")
    async def read(sample_id: str) -> JsonResponse:
        return JsonResponse({"id": sample_id})

    @router.get("/{sample_id}/parts/{part_id}")
    async def part(sample_id: str, part_id: str) -> JsonResponse:
        return JsonResponse({"id": sample_id, "part": part_id})

    @router.delete("/{sample_id}", status_code=204)
    async def delete(sample_id: str) -> None:
        seen.changes.append(sample_id)

    @router.websocket("/socket/{behaviour}")
    async def socket(websocket: WebSocket, behaviour: str) -> None:
        if behaviour == "refused":
            raise UnauthenticatedError
        await websocket.accept()
        if behaviour == "broken":
            raise ZeroDivisionError
        await websocket.send_text(await websocket.receive_text())
        await websocket.close()

    return router


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def sample_settings(request: pytest.FixtureRequest) -> Settings:
    values: dict[str, Any] = {
        "replica_name": "replica-sample",
        "mongodb_uri": "mongodb://127.0.0.1:9/none",
        "redis_url": "redis://127.0.0.1:9/0",
        "trusted_proxies": ("10.1.0.0/16", "fd00::/8"),
    }
    for marker in request.node.iter_markers("settings"):
        values = {**values, **marker.kwargs}
    return Settings(**values)


@pytest.fixture
def sample_app(sample_settings: Settings, seen: Seen) -> Api:
    api = create_app(sample_settings)
    api.include_router(sample_router(seen))
    return api


Connect = Callable[..., httpx.AsyncClient]


@pytest.fixture
async def connect(sample_app: Api) -> AsyncIterator[Connect]:
    """Return a function that opens a client in process, from a peer address of the test's choice."""
    async with contextlib.AsyncExitStack() as clients:

        def open_client(peer: str = "127.0.0.1") -> httpx.AsyncClient:
            transport = httpx.ASGITransport(sample_app, client=(peer, 50000))
            client = httpx.AsyncClient(transport=transport, base_url="http://sample.test")
            clients.push_async_callback(client.aclose)
            return client

        yield open_client


@pytest.fixture
def sample(connect: Connect) -> httpx.AsyncClient:
    return connect()


@dataclass
class Serving:
    """A real server in this process: its port, and how to make it leave."""

    server: Server
    port: int
    task: asyncio.Task[None]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture
async def serving(sample_app: Api, sample_settings: Settings) -> AsyncIterator[Serving]:
    """Serve the sample application on a real socket, as `app.serve` does."""
    config: uvicorn.Config = server_config(sample_app, sample_settings)
    server = Server(config, draining=sample_app.state.draining, grace_s=sample_settings.drain_grace_s)
    with bound_socket("127.0.0.1", 0) as listener:
        task = asyncio.create_task(server.serve(sockets=[listener]))
        await until(lambda: server.started or task.done())
        yield Serving(server, listener.getsockname()[1], task)
        server.should_exit = server.force_exit = True
        await task
        # uvicorn leaves the lifespan open when it is forced: the probes of twenty such applications, all of a
        # MongoDB that is not there, take every thread that the driver has in this process
        await server.lifespan.shutdown()


class Lines(logging.Handler):
    """Collects log records as the JSON lines that production would write."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[bytes] = []
        self._json = JsonFormatter(process_fields={"replica": "replica-sample"}, context_fields=log_fields)

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith("httpx"):  # the test's own client says what it sent
            self.text.append(self._json.render(record))

    def named(self, message: str) -> list[dict[str, Any]]:
        lines = [orjson.loads(line) for line in self.text]
        return [line for line in lines if line["message"] == message]


@pytest.fixture
def logs() -> Iterator[Lines]:
    handler = Lines()
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield handler
    root.setLevel(level)
    root.removeHandler(handler)
