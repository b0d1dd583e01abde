"""Reviewers who each look at an application and add a note to it: `python -m bench.reviewers_client FILE`.

FILE is JSON: {"host", "port", "seconds", "tokens", "applications"}. Each token has a connection of its own
and a fixed moment within INTERVAL_S: then it reads one of the applications, by chance, and at once decides on
it as of the version that it read. They join over the first interval, which is not measured. The latency of a
read counts from the moment that it was *due*, that of a decision from when it was sent. Prints {"asked",
"requests", "accepted", "conflicts", "errors", "p50_ms", "p95_ms", "p99_ms", "max_ms"}: `asked` counts what
was not measured, too; the others don't.
"""

import asyncio
import json
import random
import sys
from collections import Counter
from pathlib import Path
from statistics import quantiles
from typing import Any

import uvloop

INTERVAL_S = 10
_PATIENCE_S = 10
_OK, _CONFLICT = 200, 409


class Crowd:
    """All of them, and what they have seen."""

    def __init__(self, plan: dict[str, Any]) -> None:
        """`plan` is what the file holds."""
        self._plan = plan
        self._loop = asyncio.get_running_loop()
        self._begin_s = self._loop.time()
        self.asked = 0
        self.seen: Counter[str] = Counter()
        self.latencies_s: list[float] = []

    async def work(self, number: int, token: str) -> None:
        """Be one reviewer, to the end. A connection that breaks is an error, and opened again."""
        due_s = self._begin_s + INTERVAL_S * number / len(self._plan["tokens"])
        until_s = self._begin_s + INTERVAL_S + self._plan["seconds"]
        streams = None
        while due_s < until_s:
            await asyncio.sleep(due_s - self._loop.time())
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    streams = streams or await asyncio.open_connection(self._plan["host"], self._plan["port"])
                    await self._act(*streams, token, due_s)
            except (OSError, EOFError, TimeoutError):
                self._count("errors", due_s)
                if streams:
                    streams[1].close()
                streams = None
            due_s += INTERVAL_S
        if streams:
            streams[1].close()

    async def _act(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str, due_s: float
    ) -> None:
        path = f"/api/v1/applications/{random.choice(self._plan['applications'])}"  # noqa: S311  # spreads them
        head = f"{path} HTTP/1.1\r\nHost: {self._plan['host']}\r\nAuthorization: Bearer {token}\r\n"
        status, body = await _exchange(reader, writer, f"GET {head}\r\n".encode())
        self._count("read" if status == _OK else "errors", due_s, self._loop.time() - due_s)
        if status != _OK:
            return
        found = json.loads(body)
        note = {"status": found["status"], "version": found["version"], "note": "Looked at it"}
        content = json.dumps(note).encode()
        length = f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        sent_s = self._loop.time()
        status, _ = await _exchange(reader, writer, f"PUT {head}{length}".encode() + content)
        outcome = {_OK: "accepted", _CONFLICT: "conflicts"}.get(status, "errors")
        self._count(outcome, due_s, self._loop.time() - sent_s)

    def _count(self, outcome: str, due_s: float, latency_s: float | None = None) -> None:
        self.asked += 1
        if due_s >= self._begin_s + INTERVAL_S:
            self.seen[outcome] += 1
            if latency_s is not None:
                self.latencies_s.append(latency_s)


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> tuple[int, bytes]:
    """Send a request and return the status and the body of its answer, which says how long it is."""
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    _, _, after = head.partition(b"content-length:")
    return int(head.split(b" ", 2)[1]), await reader.readexactly(int(after.partition(b"\r\n")[0]))


async def _run(plan: dict[str, Any]) -> dict[str, float]:
    crowd = Crowd(plan)
    await asyncio.gather(*(crowd.work(number, token) for number, token in enumerate(plan["tokens"])))
    percentiles_ms = [1000 * cut for cut in quantiles(crowd.latencies_s, n=100)]
    return {
        "asked": crowd.asked,
        "requests": sum(crowd.seen.values()),
        **{outcome: crowd.seen[outcome] for outcome in ("accepted", "conflicts", "errors")},
        "p50_ms": percentiles_ms[49],
        "p95_ms": percentiles_ms[94],
        "p99_ms": percentiles_ms[98],
        "max_ms": 1000 * max(crowd.latencies_s),
    }


def main() -> None:
    """Run the plan in the file and print what came of it."""
    sys.stdout.write(json.dumps(uvloop.run(_run(json.loads(Path(sys.argv[1]).read_text())))) + "\n")


if __name__ == "__main__":
    main()
