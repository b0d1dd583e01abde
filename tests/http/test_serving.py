"""On a real socket: connections outlive errors, responses leave whole, and leaving costs no request."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable
from typing import Any

import httpx
import pytest
import websockets
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from app.http.application import Api
from app.http.transport import HoldingTransport
from tests.http.conftest import Lines, Seen, Serving
from tests.waiting import until


class Connection:
    """One raw HTTP/1.1 connection, so that a test knows which connection a request went over."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, method: str, path: str, body: bytes = b"", headers: str = "") -> None:
        head = f"{method} {path} HTTP/1.1\r\nHost: sample\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        self._writer.write(head.encode() + body)
        await self._writer.drain()

    async def receive(self) -> tuple[int, dict[str, str], bytes]:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.rstrip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        body = await self._reader.readexactly(int(headers.get("content-length", 0)))
        return int(first.split()[1]), headers, body

    async def ask(
        self, method: str, path: str, body: bytes = b"", headers: str = ""
    ) -> tuple[int, dict[str, str], bytes]:
        await self.send(method, path, body, headers)
        return await self.receive()

    async def rest(self) -> bytes:
        return await self._reader.read()


@contextlib.asynccontextmanager
async def connection_to(serving: Serving) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", serving.port)
    async with asyncio.timeout(20):
        yield Connection(reader, writer)
    writer.close()
    await writer.wait_closed()


async def test_after_a_500_the_same_connection_serves_the_next_request(serving: Serving) -> None:
    async with connection_to(serving) as connection:
        for _ in range(3):
            status, headers, body = await connection.ask("GET", "/api/v1/samples/broken")
            assert status == 500
            assert headers["content-type"] == "application/problem+json"
            assert "connection" not in headers
            assert json.loads(body)["code"] == "internal_error"
            assert (await connection.ask("GET", "/health"))[0] == 200


JSON = "Content-Type: application/json\r\n"
BAD_POSTS = {
    "broken JSON": ("/api/v1/samples", b"{", JSON, 400),
    "another type": ("/api/v1/samples", b"{}", "Content-Type: text/plain\r\n", 415),
    "endless nesting": ("/api/v1/samples", b"[" * 100_000, JSON, 422),
    "three megabytes": ("/api/v1/samples", b" " * 3_000_000, JSON, 413),
    "nowhere": ("/nowhere", b"x" * 1000, "", 404),
}


@pytest.mark.parametrize("name", BAD_POSTS)
async def test_after_bad_input_the_same_connection_serves_the_next_request(
    name: str, serving: Serving, seen: Seen
) -> None:
    path, body, headers, expected = BAD_POSTS[name]
    async with connection_to(serving) as connection:
        assert (await connection.ask("POST", path, body, headers))[0] == expected
        assert (await connection.ask("GET", "/health"))[0] == 200
    assert seen.changes == []


async def test_a_response_that_breaks_half_way_is_cut_off_and_never_looks_complete(
    serving: Serving, logs: Lines
) -> None:
    async with httpx.AsyncClient(base_url=serving.url) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/api/v1/samples/half-broken")
        assert (await client.get("/health")).status_code == 200
    assert logs.named("response_cut_short")
    assert "ZeroDivisionError" in logs.named("unhandled_error")[0]["exception"]
    assert logs.named("Exception in ASGI application\n") == []


async def test_a_client_that_leaves_in_the_middle_costs_nothing(
    serving: Serving, seen: Seen, logs: Lines
) -> None:
    async with connection_to(serving) as connection:
        await connection.send("GET", "/api/v1/samples/slow")
        await until(lambda: seen.waiting == 1)
    seen.release.set()
    async with connection_to(serving) as connection:
        assert (await connection.ask("GET", "/health"))[0] == 200
    assert logs.named("unhandled_error") == []


async def test_what_is_not_http_is_a_problem_too(serving: Serving) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", serving.port)
    writer.write(b"what is this\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 20)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"code":"bad_request"' in answer
    writer.close()
    await writer.wait_closed()


async def test_head_and_pipelined_requests_keep_their_order(serving: Serving) -> None:
    async with connection_to(serving) as connection:
        await connection.send("GET", "/api/v1/samples/first")
        await connection.send("GET", "/api/v1/samples/second")
        assert json.loads((await connection.receive())[2]) == {"id": "first"}
        assert json.loads((await connection.receive())[2]) == {"id": "second"}


class RecordingTransport(asyncio.Transport):
    """Notes which bytes were handed over together."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.closed = False

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        self.sent.append(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


async def test_head_and_body_of_a_response_leave_in_one_write() -> None:
    real = RecordingTransport()
    holding = HoldingTransport(real, asyncio.get_running_loop())
    holding.write(b"head")
    holding.write(b"body")
    assert real.sent == []
    await asyncio.sleep(0)
    assert real.sent == [b"headbody"]


async def test_a_large_body_is_not_held() -> None:
    real = RecordingTransport()
    holding = HoldingTransport(real, asyncio.get_running_loop())
    holding.write(b"head")
    holding.write(b"x" * 100_000)
    assert len(real.sent) == 1
    await asyncio.sleep(0)
    assert len(real.sent) == 1


async def test_closing_sends_what_is_held_first() -> None:
    real = RecordingTransport()
    holding = HoldingTransport(real, asyncio.get_running_loop())
    holding.write(b"last words")
    holding.close()
    assert (real.sent, real.closed) == ([b"last words"], True)


async def test_a_refused_socket_gets_a_problem_instead_of_a_handshake(serving: Serving) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        await websockets.connect(f"ws://127.0.0.1:{serving.port}/api/v1/samples/socket/refused")
    response = refusal.value.response
    assert response.status_code == 401
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-replica"] == "replica-sample"
    assert json.loads(response.body or b"")["code"] == "unauthenticated"


async def test_a_socket_that_breaks_is_closed_with_1011_and_logged(serving: Serving, logs: Lines) -> None:
    async with websockets.connect(f"ws://127.0.0.1:{serving.port}/api/v1/samples/socket/broken") as socket:
        with pytest.raises(ConnectionClosedError) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1011, "internal_error")
    assert "ZeroDivisionError" in logs.named("websocket_error")[0]["exception"]


async def test_a_socket_carries_messages(serving: Serving) -> None:
    async with websockets.connect(f"ws://127.0.0.1:{serving.port}/api/v1/samples/socket/echo") as socket:
        await socket.send("hello")
        assert await socket.recv() == "hello"


@pytest.mark.settings(drain_grace_s=60.0)
async def test_while_draining_readiness_fails_and_everything_is_still_served(serving: Serving) -> None:
    async with connection_to(serving) as connection:
        serving.server.leave()
        status, headers, body = await connection.ask("GET", "/ready")
        assert status == 503
        assert headers["retry-after"] == "1"
        document = json.loads(body)
        assert (document["status"], document["code"]) == ("fail", "draining")
        assert document["checks"].keys() == {"mongo", "redis"}
    async with connection_to(serving) as connection:
        status, headers, _ = await connection.ask("GET", "/api/v1/samples/new")
        assert status == 200
        assert headers["connection"] == "close"
    async with connection_to(serving) as connection:
        assert (await connection.ask("GET", "/health"))[0] == 200
    assert not serving.task.done()


async def test_a_request_under_way_finishes_after_the_listener_has_closed(
    serving: Serving, seen: Seen, sample_app: Api
) -> None:
    async with connection_to(serving) as connection:
        await connection.send("GET", "/api/v1/samples/slow")
        await until(lambda: seen.waiting == 1)
        serving.server.leave()
        assert sample_app.state.draining.is_set()
        await until_refused(serving)
        assert not serving.task.done()
        seen.release.set()
        status, headers, body = await connection.receive()
        assert (status, headers["connection"], json.loads(body)) == (200, "close", {"done": True})
        assert await connection.rest() == b""
    await asyncio.wait_for(serving.task, 20)


@pytest.mark.settings(drain_timeout_s=1)
async def test_a_request_that_does_not_finish_in_time_is_told_to_go_elsewhere(
    serving: Serving, seen: Seen
) -> None:
    async with connection_to(serving) as connection:
        await connection.send("GET", "/api/v1/samples/slow")
        await until(lambda: seen.waiting == 1)
        serving.server.leave()
        status, _, body = await connection.receive()
        assert status == 503
        assert json.loads(body)["code"] == "draining"
    await asyncio.wait_for(serving.task, 20)


@pytest.mark.settings(drain_grace_s=60.0)
async def test_a_second_signal_skips_the_grace(serving: Serving) -> None:
    serving.server.leave()
    serving.server.leave()
    await asyncio.wait_for(serving.task, 20)


async def until_refused(serving: Serving) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", serving.port)
            except OSError:
                return
            writer.close()
            await asyncio.sleep(0.01)
