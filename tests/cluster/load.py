"""Load on a running cluster, and a merciless account of what became of it.

A request fails if no whole answer comes (`wire.Broken`), or if its own `wrong` finds fault with the answer.
Nothing is repeated. Either every connection asks again as soon as it has its answer (`Load(…)`: as many
requests in flight as connections), or requests leave at a steady rate, whatever becomes of those before
(`Load(…, per_second=200)`).
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from tests.cluster.wire import Broken, Connection, Reply

_SHOWN_FAILURES = 10


@dataclass(frozen=True, slots=True)
class Request:
    """One request and what must be true of its answer: `wrong` returns a complaint, or nothing."""

    method: str
    path: str
    wrong: Callable[[Reply], str]
    token: str = ""
    body: Any = None


@dataclass
class Tally:
    """What happened so far."""

    answered: int = 0
    failures: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    replicas: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        """Return the figures in one line, and the first failures below it."""
        figures = (
            f"{self.answered + len(self.failures)} requests, {len(self.failures)} failed, slowest "
            f"{self.slowest_s:.2f} s, by replica {dict(sorted(self.replicas.items()))}"
        )
        return "\n  ".join([figures, *self.failures[:_SHOWN_FAILURES]])


class Load:
    """Runs inside `async with`; leaving the block waits for what is in flight, so nothing is cut off."""

    def __init__(
        self,
        url: str,
        make_request: Callable[[int], Request],
        *,
        connections: int,
        per_second: float | None = None,
    ) -> None:
        """`make_request` gets the number of the request, 0, 1, 2 …"""
        self.tally = Tally()
        self._make_request = make_request
        self._connections = [Connection(url) for _ in range(connections)]
        self._interval_s = 1 / per_second if per_second else 0.0
        self._number = 0
        self._stopping = asyncio.Event()
        self._group = asyncio.TaskGroup()
        self._answer = asyncio.Condition()

    def waiting(self, *, longer_than_s: float) -> int:
        """Return how many requests were sent that long ago and have not been answered."""
        return sum(connection.waiting_s > longer_than_s for connection in self._connections)

    async def answered(self, count: int, *, timeout_s: float = 600) -> None:
        """Return once that many requests have come to an end, well or not."""
        async with asyncio.timeout(timeout_s), self._answer:
            await self._answer.wait_for(lambda: self.tally.answered + len(self.tally.failures) >= count)

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._began_s = time.monotonic()
        for connection in self._connections:
            self._group.create_task(self._keep_asking(connection))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        await self._group.__aexit__(kind, error, trace)

    async def _keep_asking(self, connection: Connection) -> None:
        while True:
            number = self._number
            self._number += 1
            await self._wait_for_turn(number)
            if self._stopping.is_set():
                break
            await self._ask(connection, self._make_request(number))
        await connection.close()

    async def _wait_for_turn(self, number: int) -> None:
        if not self._interval_s:
            return
        left_s = self._began_s + number * self._interval_s - time.monotonic()
        if left_s > 0:
            await asyncio.wait([asyncio.ensure_future(asyncio.sleep(left_s))])

    async def _ask(self, connection: Connection, request: Request) -> None:
        began_s = time.monotonic()
        try:
            reply = await connection.ask(request.method, request.path, token=request.token, body=request.body)
            complaint = request.wrong(reply)
            self.tally.replicas[reply.headers.get("x-replica", "nginx itself")] += 1
        except Broken as broken:
            complaint = str(broken)
        took_s = time.monotonic() - began_s
        self.tally.slowest_s = max(self.tally.slowest_s, took_s)
        if complaint:
            at_s = time.monotonic() - self._began_s
            self.tally.failures.append(f"{request.method} {request.path} at {at_s:.2f} s: {complaint}")
        else:
            self.tally.answered += 1
        async with self._answer:
            self._answer.notify_all()
