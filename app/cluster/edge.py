"""Nginx in front of the replicas: which of them get requests, changed while requests come in.

An ejected replica gets no new request once `eject` has returned: the new configuration is in force, and the
Nginx workers of the old one have retired. Only then may the replica be told to stop.
"""

import asyncio
import contextlib
import signal
from pathlib import Path

import psutil

from app.cluster import nginx
from app.cluster.application import PROXY_SOURCE
from app.cluster.child import Child, Program
from app.cluster.engines import engine_environment
from app.cluster.failures import StartFailedError
from app.cluster.layout import REPOSITORY, Layout
from app.cluster.ports import LOOPBACK
from app.cluster.probes import http_status
from app.cluster.processes import Process, Surroundings

_TAKEOVER_TIMEOUT_S = 10.0
_LINGER_S = 3.0
_POLL_S = 0.02


class Edge:
    """The cluster's Nginx. Begin `process` once a replica is admitted."""

    def __init__(self, layout: Layout, port: int, *, limits: bool, surroundings: Surroundings) -> None:
        """`port` is the one people use; `limits` turns Nginx's own rate limits on."""
        self.port = port
        self._layout = layout
        self._limits = limits
        self._wanted: dict[str, str] = {}
        self._in_force: tuple[str, ...] = ()
        self._changing = asyncio.Lock()
        self.process = Process("nginx", self._program, surroundings, when_ready=self._catch_up)

    async def admit(self, replica: Process) -> None:
        """Send requests to a replica that is ready, from the moment this returns at the latest.

        Repeating it is harmless.
        """
        self._wanted[replica.name] = f"{LOOPBACK}:{replica.port}"
        await self._apply()

    async def eject(self, *replicas: Process) -> None:
        """Send no new request to these. Requests they have already are theirs to finish."""
        for replica in replicas:
            self._wanted.pop(replica.name, None)
        await self._apply()

    def _program(self, _: int) -> Program:
        self._in_force = tuple(self._wanted.values())
        try:
            command = nginx.command(self._write(self._in_force))
        except nginx.NginxConfigError as error:
            raise StartFailedError("nginx", f"can't be started: {error}") from None
        return Program(
            argv=tuple(command),
            cwd=self._layout.nginx,
            env=engine_environment(),
            log=self._layout.log("nginx"),
            ready=self._answers,
            address=f"localhost:{self.port}",
            # SIGQUIT: finish what is under way. Streams would hold it for ever, so SIGTERM follows.
            stop_signals=((signal.SIGQUIT, 5.0), (signal.SIGTERM, 5.0)),
        )

    async def _answers(self, _: Child) -> bool:
        return await http_status(self.port, "/health") is not None

    def _write(self, upstreams: tuple[str, ...]) -> Path:
        return nginx.write(
            nginx.NginxSite(
                port=self.port,
                upstreams=upstreams,
                run_dir=self._layout.nginx,
                web_root=REPOSITORY / "web" / "dist",
                edge_limits=self._limits,
                proxy_bind=PROXY_SOURCE,
            )
        )

    async def _catch_up(self, _: Process) -> None:
        await self._apply()

    async def _apply(self) -> None:
        """Bring what is wanted into force.

        While Nginx is starting nothing is done: it will be caught up with when it serves.
        """
        async with self._changing:
            pid, before, upstreams = self.process.pid, self._in_force, tuple(self._wanted.values())
            if pid is None or not self.process.serving or before == upstreams:
                return
            try:
                conf = self._write(upstreams)
                await asyncio.to_thread(nginx.check, conf)
                old_workers = psutil.Process(pid).children()
                nginx.reload(pid)
            except nginx.NginxConfigError as error:
                raise StartFailedError("nginx", f"can't be told about its replicas: {error}") from None
            except (psutil.NoSuchProcess, ProcessLookupError):
                return  # it has just died; its successor reads the new file
            self._in_force = upstreams
            await self._taken_over(old_workers)
            if set(before) - set(upstreams):
                await self._gone(old_workers)

    async def _taken_over(self, old_workers: list[psutil.Process]) -> None:
        """Return when the old workers have stopped to accept.

        Raises StartFailedError if they go on: Nginx has refused the configuration.
        """
        try:
            async with asyncio.timeout(_TAKEOVER_TIMEOUT_S):
                while any(_accepts(worker) for worker in old_workers):  # noqa: ASYNC110  # they tell nobody
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise StartFailedError("nginx", "did not take over its new configuration") from None

    async def _gone(self, old_workers: list[psutil.Process]) -> None:
        """Return when the old workers have gone, or 3 s are over: then long-lived streams hold them.

        Until they go they answer what comes in on connections they still have (`keepalive_min_timeout`).
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                while any(_lives(worker) for worker in old_workers):  # noqa: ASYNC110  # they tell nobody
                    await asyncio.sleep(_POLL_S)


def _lives(worker: psutil.Process) -> bool:
    try:
        return worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _accepts(worker: psutil.Process) -> bool:
    """Say whether it takes new connections; one that has closed its sockets says so in its title."""
    try:
        return _lives(worker) and "shutting down" not in " ".join(worker.cmdline())
    except psutil.NoSuchProcess:
        return False
