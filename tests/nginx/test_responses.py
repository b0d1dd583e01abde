"""What comes back: problems, headers, compression, streams, the cache, and the pages."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.nginx.edge import Edge, eventually, running_edge
from tests.nginx.peer import Answer, Received, json_answer, stream_until

OWNED = (
    "X-Content-Type-Options",
    "X-Frame-Options",
    "Referrer-Policy",
    "Permissions-Policy",
    "Cross-Origin-Opener-Policy",
    "Cross-Origin-Resource-Policy",
    "Content-Security-Policy",
    "X-Request-ID",
)


@pytest.fixture
async def client_edge(tmp_path: Path) -> AsyncIterator[Edge]:
    """An edge with a built web client behind it."""
    web = tmp_path / "dist"
    (web / "assets").mkdir(parents=True)
    (web / "index.html").write_text("<!doctype html><title>client</title>")
    (web / "assets" / "app-1a2b3c.js").write_text("export {};")
    (web / ".env").write_text("SECRET=1")
    (tmp_path / "secret.txt").write_text("outside")
    async with running_edge(tmp_path, web_root=web) as edge:
        yield edge


async def body_of(edge: Edge, request: str) -> tuple[int, dict[str, object]]:
    answer = await edge.raw(request)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    return int(head.split(b" ")[1]), json.loads(body)


@pytest.mark.parametrize(
    ("request_text", "status", "code"),
    [
        ("GARBAGE\r\n\r\n", 400, "bad_request"),
        ("GET /api/v1/x HTTP/1.1\r\n\r\n", 400, "bad_request"),
        (
            "POST /api/v1/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            400,
            "bad_request",
        ),
        ("GET /api/v1/x HTTP/3.0\r\nHost: localhost\r\n\r\n", 505, "http_version_not_supported"),
        (f"GET /{'x' * 9000} HTTP/1.1\r\nHost: localhost\r\n\r\n", 414, "uri_too_long"),
        (f"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: {'x' * 9000}\r\n\r\n", 431, "headers_too_large"),
        ("GET /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404, "not_found"),
        ("POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 405, "method_not_allowed"),
    ],
)
async def test_nginx_says_its_own_errors_as_problems(
    edge: Edge, request_text: str, status: int, code: str
) -> None:
    got, problem = await body_of(edge, request_text)
    assert got == status
    assert problem.keys() == {"type", "title", "status", "detail", "code", "request_id"}
    assert (problem["status"], problem["code"], problem["type"]) == (status, code, f"/problems/{code}")


async def test_a_problem_of_nginx_carries_the_request_id_and_the_security_headers_once(edge: Edge) -> None:
    await edge.peers[0].stop()
    answer = await edge.client.get("/api/v1/x", headers={"X-Request-ID": "my-request-1"})
    assert answer.status_code == 502
    assert answer.json()["request_id"] == "my-request-1"
    assert {name: len(answer.headers.get_list(name)) for name in OWNED} == dict.fromkeys(OWNED, 1)
    assert answer.headers["Retry-After"] == "2"
    assert answer.headers["Cache-Control"] == "no-store"


async def test_a_replicas_own_problem_is_passed_on_untouched(edge: Edge) -> None:
    for status in (400, 404, 418, 429, 500, 502, 503, 504):
        body = json.dumps({"code": f"own_{status}"}).encode()
        edge.peers[0].answers["/api/v1/x"] = Answer(
            status, (("content-type", "application/problem+json"),), body
        )
        for method in ("GET", "POST", "PUT"):
            answer = await edge.client.request(method, "/api/v1/x")
            assert (answer.status_code, answer.content) == (status, body)
            assert "Retry-After" not in answer.headers


async def test_bodies_are_limited_and_documents_may_be_larger(edge: Edge) -> None:
    two_mb, twelve_mb = b"x" * (2 << 20), b"x" * (12 << 20)
    document = "/api/v1/applications/app_1/documents"
    for path, body, status in (
        ("/api/v1/bookings", b"x" * (1 << 20), 200),
        ("/api/v1/bookings", two_mb, 413),
        (document, two_mb, 200),
        (document, twelve_mb, 413),
    ):
        for key in ({}, {"Idempotency-Key": "k"}):
            answer = await edge.client.post(path, content=body, headers=key)
            assert answer.status_code == status
            assert status == 200 or answer.json()["code"] == "payload_too_large"
    assert {len(one.body) for one in edge.peers[0].received} == {1 << 20, 2 << 20}


async def test_headers_of_nginx_come_once_whatever_the_replica_sends(edge: Edge) -> None:
    own = tuple((name, f"from-the-replica-{name}") for name in OWNED)
    edge.peers[0].answers["/api/v1/x"] = Answer(200, own)
    answer = await edge.client.get("/api/v1/x")
    assert {name: len(answer.headers.get_list(name)) for name in OWNED} == dict.fromkeys(OWNED, 1)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"] == "from-the-replica-Content-Security-Policy"


async def test_a_replicas_cache_control_is_kept_and_data_without_one_is_not_stored(edge: Edge) -> None:
    edge.peers[0].answers["/api/v1/x"] = Answer(200, (("cache-control", "private, max-age=5"),))
    assert (await edge.client.get("/api/v1/x")).headers.get_list("Cache-Control") == ["private, max-age=5"]
    assert (await edge.client.get("/api/v1/y")).headers.get_list("Cache-Control") == ["no-store"]
    assert (await edge.client.get("/health")).headers.get_list("Cache-Control") == ["no-store"]


async def test_pages_run_their_own_scripts_and_data_runs_none(edge: Edge) -> None:
    for path in ("/", "/docs"):
        policy = (await edge.client.get(path)).headers["Content-Security-Policy"]
        assert "script-src 'self';" in policy
        assert f"ws://127.0.0.1:{edge.port}" in policy
    for path in ("/api/v1/x", "/health", "/mcp", "/openapi.json", "/problems/not_found"):
        assert (
            (await edge.client.get(path)).headers["Content-Security-Policy"].startswith("default-src 'none'")
        )


async def test_large_answers_are_compressed_except_where_they_carry_tokens(edge: Edge) -> None:
    large = json_answer(["a"] * 2000, ("etag", '"3"'))
    paths = ("/api/v1/x", "/api/v1/auth/me", "/api/v1/api-keys", "/api/v1/realtime/ticket")
    edge.peers[0].answers = dict.fromkeys(paths, large)
    encodings = {path: (await edge.client.get(path)).headers.get("Content-Encoding") for path in paths}
    assert encodings == {path: "gzip" if path == "/api/v1/x" else None for path in paths}
    assert all("accept-encoding" not in one.headers for one in edge.peers[0].received)
    assert "Content-Encoding" not in (await edge.client.get("/api/v1/small")).headers


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/v1/chat/stream"),
        ("GET", "/api/v1/chat/runs/run_1/stream"),
        ("POST", "/mcp"),
        ("GET", "/mcp/"),
    ],
)
async def test_a_stream_arrives_as_it_is_written(edge: Edge, method: str, path: str) -> None:
    release = asyncio.Event()
    edge.peers[0].handlers[path] = stream_until(release)
    async with edge.client.stream(method, path) as answer:
        lines = answer.aiter_lines()
        assert [await anext(lines) for _ in range(3)] == ["event: delta", "data: first", ""]
        release.set()
        assert [line async for line in lines] == ["event: done", "data: last", ""]


async def test_a_public_answer_is_kept_for_strangers_only(edge: Edge) -> None:
    peer = edge.peers[0]
    peer.answers["/api/v1/x"] = Answer(200, (("cache-control", "public"),))
    first = await edge.client.get("/api/v1/x")
    second = await edge.client.get("/api/v1/x")
    assert (first.headers["X-Cache"], second.headers["X-Cache"]) == ("MISS", "HIT")
    assert first.headers["X-Request-ID"] != second.headers["X-Request-ID"]
    assert peer.count() == 1

    for somebody in ({"Authorization": "Bearer t"}, {"X-API-Key": "k"}, {"Cookie": "cf_refresh=r"}):
        peer.answers["/api/v1/x"] = json_answer(somebody, ("cache-control", "public"))
        answer = await edge.client.get("/api/v1/x", headers=somebody)
        assert (answer.headers["X-Cache"], answer.json()) == ("BYPASS", somebody)
    assert (await edge.client.get("/api/v1/x")).json() == {"ok": True}


@pytest.mark.parametrize(
    "cache_control", [None, "private", "no-store", "max-age=60", "public, max-age=0", "x-public"]
)
async def test_an_answer_that_is_not_called_public_is_never_kept(
    edge: Edge, cache_control: str | None
) -> None:
    headers = (("cache-control", cache_control),) if cache_control else ()
    edge.peers[0].answers["/api/v1/x"] = Answer(200, headers)
    answers = [await edge.client.get("/api/v1/x") for _ in range(3)]
    assert {answer.headers["X-Cache"] for answer in answers} <= {"MISS"}
    assert edge.peers[0].count() == 3


async def test_errors_writes_and_probes_are_never_kept(edge: Edge) -> None:
    public = ("cache-control", "public, max-age=60")
    edge.peers[0].answers = {
        "/api/v1/missing": Answer(404, (("cache-control", "public"),)),
        "/api/v1/x": Answer(200, (public,)),
        "/health": Answer(200, (public,)),
        "/ready": Answer(200, (public,)),
    }
    for method, path in (
        ("GET", "/api/v1/missing"),
        ("POST", "/api/v1/x"),
        ("GET", "/health"),
        ("GET", "/ready"),
    ):
        for _ in range(2):
            await edge.client.request(method, path)
    assert edge.peers[0].count() == 8


async def test_the_cache_header_of_a_replica_is_kept(edge: Edge) -> None:
    edge.peers[0].answers["/api/v1/x"] = Answer(200, (("x-cache", "STALE"),))
    for headers in ({}, {"Authorization": "Bearer t"}):
        assert (await edge.client.get("/api/v1/x", headers=headers)).headers.get_list("X-Cache") == ["STALE"]


async def test_a_public_answer_outlives_the_replicas(edge: Edge) -> None:
    edge.peers[0].answers["/openapi.json"] = Answer(200, (("cache-control", "public, max-age=1"),))
    assert (await edge.client.get("/openapi.json")).headers["X-Cache"] == "MISS"
    await edge.peers[0].stop()
    seen = set()
    async with asyncio.timeout(20):
        while "STALE" not in seen:
            answer = await edge.client.get("/openapi.json")
            assert (answer.status_code, answer.json()) == (200, {"ok": True})
            seen.add(answer.headers["X-Cache"])
    assert seen == {"HIT", "STALE"}


async def test_many_strangers_at_once_cost_one_load_of_the_documentation(edge: Edge) -> None:
    release = asyncio.Event()

    async def slow(_request: Received, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncache-control: public\r\ncontent-length: 2\r\n\r\n{}")

    edge.peers[0].handlers["/openapi.json"] = slow
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(edge.client.get("/openapi.json")) for _ in range(20)]
        await eventually(lambda: bool(edge.peers[0].received))
        release.set()
    assert {task.result().status_code for task in asked} == {200}
    assert edge.peers[0].count() == 1


async def test_strangers_whose_answers_are_not_kept_do_not_wait_for_each_other(edge: Edge) -> None:
    together = asyncio.Barrier(10)

    async def all_at_once(
        _request: Received, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await together.wait()
        writer.write(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\n{}")

    edge.peers[0].handlers["/api/v1/x"] = all_at_once
    answers = await asyncio.gather(*(edge.client.get("/api/v1/x") for _ in range(10)))
    assert {answer.status_code for answer in answers} == {401}


async def test_without_a_web_client_there_is_a_landing_page(edge: Edge) -> None:
    page = await edge.client.get("/")
    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "CargoFlow" in page.text
    for part in ("landing.css", "landing.js", "icon.svg"):
        assert f"/landing/{part}" in page.text
        assert (await edge.client.get(f"/landing/{part}")).status_code == 200
    assert (await edge.client.get("/bookings/42")).status_code == 404


async def test_the_web_client_answers_every_page_address(client_edge: Edge) -> None:
    for path in ("/", "/bookings/42", "/settings"):
        page = await client_edge.client.get(path)
        assert (page.status_code, page.headers["Cache-Control"]) == (200, "no-cache")
        assert "client" in page.text
    script = await client_edge.client.get("/assets/app-1a2b3c.js")
    assert script.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert script.headers["Content-Type"].startswith("text/javascript")


async def test_files_that_are_not_there_are_not_the_page(client_edge: Edge) -> None:
    for path in ("/assets/gone.js", "/favicon.ico", "/wp-login.php"):
        answer = await client_edge.client.get(path)
        assert (answer.status_code, answer.headers["Cache-Control"]) == (404, "no-store")


@pytest.mark.parametrize(
    "target",
    [
        "/.env",
        "/assets../.env",
        "/assets/../../secret.txt",
        "/assets/..%2f..%2fsecret.txt",
        "/landing../nginx.conf.template",
        "/landing/../snippets/requests.conf",
        "/snippets/requests.conf",
        "/nginx.conf.template",
    ],
)
async def test_no_path_leads_out_of_the_public_folders(client_edge: Edge, target: str) -> None:
    answer = await client_edge.raw(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert answer.split(b" ")[1] in {b"400", b"404"}


async def test_the_api_is_never_the_web_client(client_edge: Edge) -> None:
    for path in (
        "/api",
        "/api/",
        "/api/v1/missing",
        "/api/v1/file.json",
        "/docs",
        "/docs/oauth",
        "/openapi.json",
        "/problems/not_found",
        "/mcp",
    ):
        assert (await client_edge.client.get(path)).headers["X-Replica"] == "peer-1"


async def test_head_requests_of_problems_have_no_body(edge: Edge) -> None:
    answer: httpx.Response = await edge.client.head("/nowhere")
    assert (answer.status_code, answer.content) == (404, b"")
