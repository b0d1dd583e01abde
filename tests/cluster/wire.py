"""An HTTP/1.1 client that hides nothing: one kept-alive connection, no retry, every defect an exception.

What acceptance means by *failed* is decided here: a connection that is refused or breaks, an answer that does
not come in time, is cut short or is not HTTP (`Broken`). Status codes are for the caller to judge.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_S = 25.0
"""Above the longest that Nginx may take to answer by itself."""


class Broken(Exception):  # noqa: N818  # reads as what happened: `except Broken`
    """No whole answer came. Whether the request had an effect is unknown."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body, parsed."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The `code` of a problem, or nothing."""
        if not self.headers.get("content-type", "").startswith("application/problem+json"):
            return ""
        return str(self.json()["code"])

    def __str__(self) -> str:
        return f"{self.status} {self.body[:300]!r}"


class Connection:
    """One connection to one place, opened when first needed and again after it was closed.

    Not for two requests at once.
    """

    def __init__(self, url: str) -> None:
        """`url` is a base URL such as http://127.0.0.1:8080; `localhost` is taken to be IPv4."""
        parts = urlsplit(url)
        self._host = "127.0.0.1" if parts.hostname == "localhost" else str(parts.hostname)
        self._port = parts.port or 80
        self._authority = f"{parts.hostname}:{self._port}"
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._asked_s: float | None = None

    @property
    def waiting_s(self) -> float:
        """For how long an answer has been awaited; 0 if none is."""
        return 0.0 if self._asked_s is None else time.monotonic() - self._asked_s

    async def ask(
        self,
        method: str,
        path: str,
        *,
        token: str = "",
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Reply:
        """Send one request and return its answer. Raises Broken."""
        content = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._authority}"]
        if token:
            lines.append(f"Authorization: Bearer {token}")
        if body is not None:
            lines.append("Content-Type: application/json")
        if content or method in {"POST", "PUT", "PATCH"}:
            lines.append(f"Content-Length: {len(content)}")
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        request = "\r\n".join([*lines, "", ""]).encode() + content
        self._asked_s = time.monotonic()
        try:
            async with asyncio.timeout(timeout_s):
                return await self._exchange(request)
        except (OSError, EOFError, ValueError, LookupError, asyncio.LimitOverrunError) as error:
            await self.close()
            raise Broken(f"{method} {path}: {type(error).__name__} {error}") from error
        except BaseException:
            await self.close()
            raise
        finally:
            self._asked_s = None

    async def _exchange(self, request: bytes) -> Reply:
        if self._streams is not None and self._streams[0].at_eof():
            await self.close()  # the other side has said goodbye while nothing was asked
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        writer.write(request)
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(head[0].split(" ", 2)[1])
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head[1:-2])
        }
        reply = Reply(status, headers, await self._body(reader, status, headers))
        if headers.get("connection", "").lower() == "close":
            await self.close()
        return reply

    @staticmethod
    async def _body(reader: asyncio.StreamReader, status: int, headers: Mapping[str, str]) -> bytes:
        if status in {204, 304}:
            return b""
        if headers.get("transfer-encoding", "").lower() != "chunked":
            return await reader.readexactly(int(headers["content-length"]))
        body = b""
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readuntil(b"\r\n")
        return body

    async def close(self) -> None:
        """Close it; the next request opens a new one."""
        if self._streams is not None:
            _, writer = self._streams
            self._streams = None
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


class Door:
    """A place to ask, by any number of tasks at once: keeps connections and hands out idle ones."""

    def __init__(self, url: str) -> None:
        """`url` is the base URL of Nginx or of one replica."""
        self.url = url
        self._idle: list[Connection] = []

    async def ask(self, method: str, path: str, **details: Any) -> Reply:
        """Send one request, see `Connection.ask`."""
        connection = self._idle.pop() if self._idle else Connection(self.url)
        try:
            return await connection.ask(method, path, **details)
        finally:
            self._idle.append(connection)

    async def close(self) -> None:
        """Close the connections that are idle."""
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.close()
