"""A compiled handler answers what FastAPI's own would, but for the two differences it means to have."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import BackgroundTasks, Body, Cookie, Depends, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.routing import iter_route_contexts

from app.core.errors import UnauthenticatedError
from app.core.settings import Settings
from app.http import dispatch
from app.http.application import Api
from app.http.handler import compile_handler
from app.http.responses import JsonResponse
from app.http.routing import ApiRouter
from app.http.schemas import Money, StrictModel
from app.main import create_app


class Note(StrictModel):
    text: str
    price: Money | None = None


class Trace:
    """What was called, in order."""

    def __init__(self) -> None:
        self.calls: list[str] = []


def traced_router(trace: Trace) -> ApiRouter:  # noqa: C901  # a list of small routes
    router = ApiRouter(prefix="/t")

    async def base(request: Request) -> str:
        trace.calls.append("base")
        return request.headers.get("x-name", "nobody")

    async def left(name: Annotated[str, Depends(base)]) -> str:
        trace.calls.append("left")
        return f"left {name}"

    def right(name: Annotated[str, Depends(base)], size: Annotated[int, Query(ge=1)] = 1) -> str:
        trace.calls.append("right")
        return f"right {name} {size}"

    async def fresh() -> None:
        trace.calls.append("fresh")

    async def strict() -> None:
        trace.calls.append("strict")
        raise UnauthenticatedError

    async def opened() -> AsyncIterator[str]:
        trace.calls.append("open")
        yield "resource"
        trace.calls.append("close")

    @router.get("/tree")
    async def tree(
        a: Annotated[str, Depends(left)],
        b: Annotated[str, Depends(right)],
        _one: Annotated[None, Depends(fresh, use_cache=False)],
        _two: Annotated[None, Depends(fresh, use_cache=False)],
    ) -> JsonResponse:
        trace.calls.append("endpoint")
        return JsonResponse([a, b])

    @router.post("/guarded", dependencies=[Depends(strict)])
    async def guarded(note: Note) -> JsonResponse:
        trace.calls.append("endpoint")
        return JsonResponse(note)

    @router.post("/model", status_code=201)
    async def model(note: Note) -> Note:
        return note

    @router.post("/two")
    async def two(note: Note, tag: Annotated[str, Body(max_length=3)]) -> dict[str, Any]:
        return {"note": note, "tag": tag}

    @router.put("/mixed/{number}")
    async def mixed(  # noqa: PLR0917  # all kinds of parameters
        number: int,
        note: Note,
        flag: bool = False,
        names: Annotated[list[str] | None, Query()] = None,
        agent: Annotated[str, Header(alias="x-agent", max_length=5)] = "-",
        color: Annotated[str | None, Cookie()] = None,
    ) -> dict[str, Any]:
        return {
            "number": number,
            "text": note.text,
            "flag": flag,
            "names": names,
            "agent": agent,
            "color": color,
        }

    @router.get("/words/{word}")
    async def words(
        word: str,
        *,
        loud: bool = True,
        times: int = 1,
        name: Annotated[str | None, Query(max_length=3)] = None,
    ) -> dict[str, Any]:
        trace.calls.append("endpoint")
        return {"word": word, "loud": loud, "times": times, "name": name}

    @router.get("/short/{word}")
    async def short(word: Annotated[str, Path(max_length=3)], needed: int) -> dict[str, Any]:
        trace.calls.append("endpoint")
        return {"word": word, "needed": needed}

    @router.delete("/nothing", status_code=204)
    async def nothing() -> None:
        trace.calls.append("endpoint")

    @router.get("/resource")
    async def resource(value: Annotated[str, Depends(opened)]) -> JsonResponse:
        trace.calls.append("endpoint")
        return JsonResponse(value)

    @router.get("/tinted")
    async def tinted(response: Response) -> dict[str, int]:
        response.headers["x-tint"] = "blue"
        return {"a": 1}

    @router.get("/later")
    async def later(tasks: BackgroundTasks) -> dict[str, int]:
        tasks.add_task(trace.calls.append, "background")
        return {"a": 1}

    @router.get("/blocking")
    def blocking() -> dict[str, int]:
        return {"a": 1}

    @router.get("/stream")
    async def stream() -> Response:
        async def parts() -> AsyncIterator[bytes]:
            yield b"one"
            yield b"two"

        return StreamingResponse(parts(), media_type="text/plain")

    @router.get("/plain", response_model_exclude_none=True)
    async def plain() -> Note:
        return Note(text="x")

    return router


@pytest.fixture
def trace() -> Trace:
    return Trace()


def api_with(trace: Trace, settings: Settings) -> Api:
    api = create_app(settings)
    api.include_router(traced_router(trace), prefix="/api")
    return api


@pytest.fixture
async def compiled(trace: Trace, sample_settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(api_with(trace, sample_settings))
    async with httpx.AsyncClient(transport=transport, base_url="http://sample.test") as client:
        yield client


@pytest.fixture
async def by_fastapi(
    trace: Trace, sample_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    """The same application with every route served by FastAPI's own handler."""
    api = api_with(trace, sample_settings)
    with monkeypatch.context() as patch:
        patch.setattr(dispatch, "compile_handler", lambda _route: None)
        api.middleware_stack = api.build_middleware_stack()
    transport = httpx.ASGITransport(api)
    async with httpx.AsyncClient(transport=transport, base_url="http://sample.test") as client:
        yield client


NOTE = {"text": "  trimmed  ", "price": {"amount_minor": 5, "currency": "EUR"}}
REQUESTS: dict[str, dict[str, Any]] = {
    "a tree of dependencies": {"method": "GET", "url": "/api/t/tree?size=2", "headers": {"X-Name": "Ada"}},
    "a parameter of a dependency is wrong": {"method": "GET", "url": "/api/t/tree?size=0"},
    "a model comes back": {"method": "POST", "url": "/api/t/model", "json": NOTE},
    "a model is wrong": {"method": "POST", "url": "/api/t/model", "json": {"text": 1, "more": 2}},
    "a model is missing": {"method": "POST", "url": "/api/t/model"},
    "null for a model": {"method": "POST", "url": "/api/t/model", "json": None},
    "two bodies": {"method": "POST", "url": "/api/t/two", "json": {"note": NOTE, "tag": "abc"}},
    "one of two bodies": {"method": "POST", "url": "/api/t/two", "json": {"tag": "abcd"}},
    "no object for two bodies": {"method": "POST", "url": "/api/t/two", "json": [1]},
    "everything mixed": {
        "method": "PUT",
        "url": "/api/t/mixed/7?flag=true&names=a&names=b",
        "json": NOTE,
        "headers": {"X-Agent": "me", "Cookie": "color=red"},
    },
    "everything mixed is wrong": {
        "method": "PUT",
        "url": "/api/t/mixed/seven?flag=perhaps",
        "json": {"text": None},
        "headers": {"X-Agent": "too-long"},
    },
    "text in the path and no query": {"method": "GET", "url": "/api/t/words/42%20f%C3%BCr%20%2B"},
    "text in the path and a query": {"method": "GET", "url": "/api/t/words/a?loud=no&times=3&name=abc"},
    "a query of no use": {"method": "GET", "url": "/api/t/words/a?x"},
    "a wrong query": {"method": "GET", "url": "/api/t/words/a?loud=perhaps&name=abcd"},
    "text that has a length": {"method": "GET", "url": "/api/t/short/abc?needed=1"},
    "text that is too long, and no query": {"method": "GET", "url": "/api/t/short/abcd"},
    "nothing": {"method": "DELETE", "url": "/api/t/nothing"},
    "a resource that is opened and closed": {"method": "GET", "url": "/api/t/resource"},
    "headers by parameter": {"method": "GET", "url": "/api/t/tinted"},
    "a background task": {"method": "GET", "url": "/api/t/later"},
    "a plain function": {"method": "GET", "url": "/api/t/blocking"},
    "a stream": {"method": "GET", "url": "/api/t/stream"},
    "a model without its nulls": {"method": "GET", "url": "/api/t/plain"},
    "broken JSON": {
        "method": "POST",
        "url": "/api/t/model",
        "content": b"{",
        "headers": {"Content-Type": "application/json"},
    },
}


@pytest.mark.parametrize("name", REQUESTS)
async def test_both_handlers_answer_alike(
    name: str, compiled: httpx.AsyncClient, by_fastapi: httpx.AsyncClient, trace: Trace
) -> None:
    headers = {"X-Request-ID": "same-for-both"} | REQUESTS[name].get("headers", {})
    ours = await compiled.request(**REQUESTS[name] | {"headers": headers})
    our_calls, trace.calls = trace.calls, []
    theirs = await by_fastapi.request(**REQUESTS[name] | {"headers": headers})
    assert ours.status_code == theirs.status_code
    assert ours.content == theirs.content
    if ours.content:
        assert ours.headers["content-type"] == theirs.headers["content-type"]
    assert ours.headers.get("x-tint") == theirs.headers.get("x-tint")
    assert our_calls == trace.calls


async def test_a_shared_dependency_runs_once_and_an_unshared_one_each_time(
    compiled: httpx.AsyncClient, trace: Trace
) -> None:
    assert (await compiled.get("/api/t/tree")).json() == ["left nobody", "right nobody 1"]
    assert trace.calls == ["base", "left", "right", "fresh", "fresh", "endpoint"]


async def test_a_stranger_is_refused_before_their_body_is_read(
    compiled: httpx.AsyncClient, trace: Trace
) -> None:
    async def unread() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    response = await compiled.post("/api/t/guarded", content=unread())
    assert response.status_code == 401
    assert trace.calls == ["strict"]


def test_what_can_not_be_compiled_is_left_to_fastapi(trace: Trace, sample_settings: Settings) -> None:
    api = api_with(trace, sample_settings)
    left = {
        context.path
        for context in iter_route_contexts(api.routes)
        if (context.path or "").startswith("/api/t/") and compile_handler(context) is None
    }
    assert left == {f"/api/t/{name}" for name in ("resource", "tinted", "later", "blocking", "plain")}
