"""A payment gateway on a real socket that behaves as badly as a test wants, and counts what it has paid.

    async with gateway_server() as server:
        server.behaviour = lambda order: "lose"      # pays, and hangs up without an answer

It keeps to its own promise only: whoever asks twice under one key is paid once. `paid` is what left the bank.
"""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

Behaviour = Literal[
    "pay", "lose", "fail", "refuse", "pending", "silent", "rubbish", "endless", "unauthorized", "busy"
]
"""`lose`: pays and hangs up. `fail`: 500, nothing paid. `pending`: 202, and it has paid. `silent`: says
nothing until the other side gives up, and pays then. `busy`: 429.
"""
_STATUSES: dict[Behaviour, int] = {"fail": 500, "unauthorized": 401, "busy": 429}


@dataclass
class GatewayServer:
    """Made by `gateway_server`."""

    url: str = ""
    behaviour: Callable[[dict[str, Any]], Behaviour] = field(default=lambda _: "pay")
    pause_s: Callable[[], float] = field(default=lambda: 0.0)
    paid: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Payments by key: one under each, and another under another key."""
    asked: int = 0
    authorizations: set[str] = field(default_factory=set)

    def payments_to(self, payee: str) -> list[dict[str, Any]]:
        """Return what somebody was paid, under whatever keys."""
        return [row for row in self.paid.values() if row["payee"] == payee]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection, of one request."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            lines = head.split("\r\n")
            method, path, _ = lines[0].split(" ")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
            self.authorizations.add(headers.get("authorization", ""))
            if method == "GET":
                found = self.paid.get(path.rsplit("/", 1)[1])
                await self._answer(writer, 404 if found is None else 200, found or {})
            else:
                body = json.loads(await reader.readexactly(int(headers["content-length"])))
                await self._pay({**body, "key": headers["idempotency-key"]}, reader, writer)
        writer.close()

    async def _pay(
        self, order: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.asked += 1
        await asyncio.sleep(self.pause_s())
        behaviour = self.behaviour(order)
        if behaviour == "silent":
            await reader.read()
        if behaviour in {"pay", "lose", "pending", "silent", "rubbish"} and order["key"] not in self.paid:
            payment = {"id": f"pay_{random.getrandbits(64):x}", "status": "paid", **order}
            self.paid[order["key"]] = payment
        if behaviour in _STATUSES:
            await self._answer(writer, _STATUSES[behaviour], {"error": "secret detail"})
        elif behaviour == "refuse":
            await self._answer(writer, 402, {"status": "refused", "reason": "account closed"})
        elif behaviour == "pending":
            await self._answer(writer, 202, {"id": "pay_later", "status": "pending"})
        elif behaviour == "rubbish":
            await self._send(writer, 200, b"<html>")
        elif behaviour == "endless":
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
            while True:
                writer.write(b" " * 4096)
                await writer.drain()
        elif behaviour == "pay":
            await self._answer(writer, 201, self.paid[order["key"]])

    async def _answer(self, writer: asyncio.StreamWriter, status: int, content: dict[str, Any]) -> None:
        await self._send(writer, status, json.dumps(content).encode())

    @staticmethod
    async def _send(writer: asyncio.StreamWriter, status: int, body: bytes) -> None:
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()


@asynccontextmanager
async def gateway_server(port: int = 0) -> AsyncIterator[GatewayServer]:
    """Run one for the length of the block, on a free port unless one is named."""
    gateway = GatewayServer()
    connections: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            await gateway.serve(reader, writer)
        except asyncio.CancelledError:
            writer.close()
        finally:
            connections.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    gateway.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield gateway
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
