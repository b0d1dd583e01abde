"""The real Nginx with the real template, in front of peers that a test commands."""

import asyncio
import contextlib
import json
import signal
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from app.cluster import nginx
from tests.nginx.peer import Peer

_START_TIMEOUT_S = 10


@dataclass(frozen=True)
class Edge:
    """A running Nginx. `client` speaks to it over IPv4 and keeps connections, as a browser does."""

    port: int
    pid: int
    peers: Sequence[Peer]
    client: httpx.AsyncClient
    site: nginx.NginxSite
    _log: Path

    def access_log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]

    def raw_log(self) -> str:
        return self._log.read_text()

    async def raw(self, text: str | bytes) -> bytes:
        """Send bytes as they are and return all that comes back until Nginx hangs up."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(text.encode() if isinstance(text, str) else text)
        answer = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        return answer


@contextlib.asynccontextmanager
async def running_edge(
    folder: Path,
    *,
    peers: int = 1,
    edge_limits: bool = False,
    proxy_bind: str | None = None,
    web_root: Path | None = None,
    edit: Callable[[str], str] | None = None,
) -> AsyncIterator[Edge]:
    """Start `peers` peers and Nginx before them; end them all. `edit` may change what was rendered."""
    async with contextlib.AsyncExitStack() as stack:
        upstream = [await stack.enter_async_context(Peer(f"peer-{number}")) for number in range(1, peers + 1)]
        site = nginx.NginxSite(
            port=_free_port(),
            upstreams=tuple(f"127.0.0.1:{peer.port}" for peer in upstream),
            run_dir=folder / "run",
            web_root=web_root or folder / "web",
            edge_limits=edge_limits,
            server_names=("localhost", "127.0.0.1", "[::1]"),
            proxy_bind=proxy_bind,
        )
        conf = nginx.write(site)
        if edit is not None:
            conf.write_text(edit(conf.read_text()))
        nginx.check(conf)
        log = folder / "nginx.log"
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(*nginx.command(conf), stdout=output, stderr=output)
        stack.push_async_callback(_end, process)
        await eventually(lambda: _accepts(site.port))
        client = await stack.enter_async_context(
            httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{site.port}", timeout=20, limits=httpx.Limits(max_connections=100)
            )
        )
        yield Edge(site.port, process.pid, upstream, client, site, log)


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds; fail if it never does."""
    async with asyncio.timeout(_START_TIMEOUT_S):
        while not condition():  # noqa: ASYNC110  # it is about another process, which sets no event of ours
            await asyncio.sleep(0.02)


async def _end(process: asyncio.subprocess.Process) -> None:
    process.send_signal(signal.SIGTERM)
    await asyncio.wait_for(process.wait(), _START_TIMEOUT_S)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
