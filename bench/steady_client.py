"""Many users who each ask once a second: `python -m bench.steady_client FILE`, a process of its own.

FILE is JSON: {"host", "port", "seconds", "users": [[token, session id], …]}. Every user has a connection and
a fixed moment within the second. They join one after another over RAMP_S, which is not measured; then they
all ask for `seconds`. A latency counts from the moment a request was *due*, so a server that
stalls can't hide it by keeping the users from asking. One request in ten merges something into the session,
the others read it. Prints {"requests", "errors", "p50_ms", "p95_ms", "p99_ms", "max_ms"}; `errors` are
answers other than 200, connections that broke, and requests without an answer PATIENCE_S after the end.
"""

import asyncio
import json
import sys
from functools import partial
from pathlib import Path
from statistics import quantiles
from typing import Any, cast

import httptools
import uvloop

RAMP_S = 15
PATIENCE_S = 10
_WRITE_EVERY = 10
_OK = 200


class User(asyncio.Protocol):
    """One user's connection. Asks at its moments, one request at a time."""

    def __init__(self, number: int, host: str, token: str, session_id: str) -> None:
        """Asks nothing before `ask_every_second`."""
        line = f"/api/v1/sessions/{session_id} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"
        self._read = f"GET {line}\r\n".encode()
        body = f'{{"data":{{"step":{number}}}}}'
        length = f"Content-Length: {len(body)}"
        self._write = f"PATCH {line}Content-Type: application/json\r\n{length}\r\n\r\n{body}".encode()
        self._loop = asyncio.get_running_loop()
        self._turn = number
        self._due_s: list[float] = []
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._measured_s = 0.0
        self.latencies_s: list[float] = []
        self.errors = 0

    def ask_every_second(self, first_s: float, *, measured_s: float, until_s: float) -> None:
        """Ask from one moment of the loop's clock to another; latencies are kept from `measured_s` on."""
        self._measured_s = measured_s
        due_s = first_s
        while due_s < until_s:
            self._loop.call_at(due_s, self._ask, due_s)
            due_s += 1

    @property
    def unanswered(self) -> int:
        """How many requests are due or under way."""
        return len(self._due_s)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, _: Exception | None) -> None:
        """Count what can't be answered any more."""
        self._transport = None
        self.errors += len(self._due_s)
        self._due_s.clear()

    def data_received(self, data: bytes) -> None:
        """Read answers."""
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Note an answer, and ask at once what has become due meanwhile."""
        due_s = self._due_s.pop(0)
        if due_s >= self._measured_s:
            self.latencies_s.append(self._loop.time() - due_s)
        self.errors += self._parser.get_status_code() != _OK
        self._parser = httptools.HttpResponseParser(self)
        if self._due_s:
            self._send()

    def _ask(self, due_s: float) -> None:
        if self._transport is None:
            self.errors += 1
            return
        self._due_s.append(due_s)
        if len(self._due_s) == 1:
            self._send()

    def _send(self) -> None:
        self._turn += 1
        if self._transport is not None:
            self._transport.write(self._read if self._turn % _WRITE_EVERY else self._write)


async def _run(plan: dict[str, Any]) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    host = f"{plan['host']}:{plan['port']}"
    users = [User(number, host, *row) for number, row in enumerate(plan["users"])]
    begin_s = loop.time()
    measured_s = begin_s + RAMP_S
    until_s = measured_s + plan["seconds"]
    for number, user in enumerate(users):
        joins_s = begin_s + RAMP_S * number / len(users)
        await asyncio.sleep(joins_s - loop.time())  # a connection that asks nothing for long is closed
        await loop.create_connection(partial(users.__getitem__, number), plan["host"], plan["port"])
        user.ask_every_second(loop.time(), measured_s=measured_s, until_s=until_s)
    await asyncio.sleep(until_s - loop.time())
    over_s = until_s + PATIENCE_S
    while any(user.unanswered for user in users) and loop.time() < over_s:  # noqa: ASYNC110  # users tell nobody
        await asyncio.sleep(0.1)
    latencies_s = [latency for user in users for latency in user.latencies_s]
    percentiles_ms = [1000 * cut for cut in quantiles(latencies_s, n=100)]
    return {
        "requests": len(latencies_s),
        "errors": sum(user.errors + user.unanswered for user in users),
        "p50_ms": percentiles_ms[49],
        "p95_ms": percentiles_ms[94],
        "p99_ms": percentiles_ms[98],
        "max_ms": 1000 * max(latencies_s),
    }


def main() -> None:
    """Run the plan in the file and print what came of it."""
    sys.stdout.write(json.dumps(uvloop.run(_run(json.loads(Path(sys.argv[1]).read_text())))) + "\n")


if __name__ == "__main__":
    main()
