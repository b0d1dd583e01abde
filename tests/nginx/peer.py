"""A replica's stand-in: it answers, dies in mid-request, or freezes, and remembers what it was sent."""

import asyncio
import base64
import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Self

_WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@dataclass(frozen=True)
class Received:
    """One request as it arrived. Header names are in lower case; a repeated header keeps every value."""

    method: str
    target: str
    headers: dict[str, list[str]]
    body: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def header(self, name: str) -> str | None:
        values = self.headers.get(name)
        return None if values is None else ", ".join(values)


@dataclass(frozen=True)
class Answer:
    """What to send back."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b'{"ok":true}'


Handler = Callable[[Received, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Peer:
    """An HTTP/1.1 server with keep-alive on a port of its own.

    `mode` is `answer`, `die` (hang up once a request was read) or `freeze` (read it and say nothing).
    """

    name: str
    mode: str = "answer"
    answers: dict[str, Answer] = field(default_factory=dict)
    handlers: dict[str, Handler] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)
    port: int = 0
    sources: set[str] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        self._writers: set[asyncio.StreamWriter] = set()
        self._thawed = asyncio.Event()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=1 << 20)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse new connections and cut the open ones, as the kernel does for a killed process."""
        self._server.close()
        self._thawed.set()
        for writer in list(self._writers):
            writer.transport.abort()
        await self._server.wait_closed()

    def count(self, method: str | None = None) -> int:
        return len([one for one in self.received if method in (None, one.method)])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.sources.add(writer.get_extra_info("peername")[0])
        try:
            while (request := await _read(reader)) is not None:
                self.received.append(request)
                if self.mode == "die":
                    writer.transport.abort()
                    return
                if self.mode == "freeze":
                    await self._thawed.wait()
                    return
                await self._answer(request, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _answer(
        self, request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        handler = self.handlers.get(request.path)
        if handler is not None:
            await handler(request, reader, writer)
            return
        answer = self.answers.get(request.path, Answer())
        head = {
            "content-type": "application/json",
            "x-replica": self.name,
            "content-length": str(len(answer.body)),
        }
        names = {name.lower() for name, _ in answer.headers}
        lines = [f"{name}: {value}" for name, value in head.items() if name not in names]
        lines += [f"{name}: {value}" for name, value in answer.headers]
        writer.write(
            f"HTTP/1.1 {answer.status} Status\r\n".encode()
            + "".join(f"{one}\r\n" for one in lines).encode()
            + b"\r\n"
        )
        if request.method != "HEAD":
            writer.write(answer.body)
        await writer.drain()


async def _read(reader: asyncio.StreamReader) -> Received | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.split("\r\n")[:-2]
    method, target, _ = first.split(" ")
    headers: dict[str, list[str]] = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers.setdefault(name.lower(), []).append(value.strip())
    body = await reader.readexactly(int(headers.get("content-length", ["0"])[0]))
    return Received(method, target, headers, body)


async def echo_websocket(
    request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Accept the upgrade, then send back every byte that comes."""
    key = (request.header("sec-websocket-key") or "").encode()
    accept = base64.b64encode(hashlib.sha1(key + _WEBSOCKET_GUID, usedforsecurity=False).digest()).decode()
    head = ("HTTP/1.1 101 Switching Protocols", "upgrade: websocket", "connection: Upgrade")
    writer.write("\r\n".join((*head, f"sec-websocket-accept: {accept}", "", "")).encode())
    while chunk := await reader.read(4096):
        writer.write(chunk)
        await writer.drain()


def stream_until(release: asyncio.Event) -> Handler:
    """Make a handler that sends one event at once and the last one only after `release`."""

    async def handler(request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(head.encode() + _chunk(b"event: delta\ndata: first\n\n"))
        await writer.drain()
        await release.wait()
        writer.write(_chunk(b"event: done\ndata: last\n\n") + b"0\r\n\r\n")
        await writer.drain()

    return handler


def silent_for(seconds: float, *, after_headers: bool) -> Handler:
    """Make a handler that answers after a silence, with its headers before or behind that."""

    async def handler(request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 4\r\n\r\n"
        if after_headers:
            writer.write(head)
            await asyncio.sleep(seconds)
            writer.write(b"late")
        else:
            await asyncio.sleep(seconds)
            writer.write(head + b"late")
        await writer.drain()

    return handler


def json_answer(value: object, *headers: tuple[str, str], status: int = 200) -> Answer:
    return Answer(status=status, headers=headers, body=json.dumps(value).encode())


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"
