"""The supervisor: one process a cluster, which starts everything, keeps it running and ends it.

It is the foreground process of `./cargoflow up`, or a daemon in a session of its own with `--detach`. While
it lives it holds the cluster's lock (`lock.py`). It ends everything and then itself on SIGINT, SIGTERM,
SIGHUP or `down`.
"""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from app.cluster.cluster import Cluster
from app.cluster.control import Answer, ControlError, ControlServer
from app.cluster.events import Announcer
from app.cluster.failures import StartFailedError
from app.cluster.journal import Journal, end_orphans
from app.cluster.plan import Plan
from app.cluster.ports import Ports
from app.cluster.processes import Surroundings
from app.core.clock import Clock


class Supervisor:
    """Runs one cluster once. Only for the holder of the cluster's lock."""

    def __init__(self, plan: Plan, given: Mapping[str, str], announcer: Announcer, clock: Clock) -> None:
        """`given` is the environment that replicas and workers inherit."""
        self._plan = plan
        self._given = given
        self._announcer = announcer
        self._clock = clock
        self._stop_asked = asyncio.Event()
        self._stopped = asyncio.Event()
        self._started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._changes: set[asyncio.Task[Any]] = set()

    async def run(self, on_up: Callable[[Answer], None]) -> None:
        """Start the cluster, keep it, and return when it was told to stop and nothing of it is left.

        `on_up` is called with the status once `/ready` is green through Nginx. Raises StartFailedError, also
        only when nothing is left, if it did not get there; being told to stop before is no failure.
        """
        layout = self._plan.layout
        for name in await end_orphans(layout.journal):
            self._announcer.say(name, "note", "was left over by a supervisor that was killed; ended it")
        journal = Journal(layout.journal, control=layout.control_socket, url=self._plan.url)
        async with asyncio.TaskGroup() as group:
            cluster = Cluster(
                self._plan, self._given, Surroundings(journal, self._announcer, Ports(), self._clock, group)
            )
            control = ControlServer(layout.control_socket, self._commands(cluster), self._announcer, group)
            with self._signals(cluster):
                try:
                    group.create_task(self._start(cluster, control, on_up), name="start")
                    await self._stop_asked.wait()
                finally:
                    await self._shut_down(cluster)
                    journal.remove()
                    control.close()
                    self._stopped.set()
        failure = self._started.exception()
        if isinstance(failure, StartFailedError):
            raise failure

    async def _start(self, cluster: Cluster, control: ControlServer, on_up: Callable[[Answer], None]) -> None:
        began_s = self._clock.monotonic_s()
        try:
            with self._change():
                await control.open()
                await cluster.start()
                status = await cluster.status()
        except (StartFailedError, ControlError) as failure:
            if isinstance(failure, StartFailedError):
                self._announcer.say("cluster", "fail", str(failure))
            self._started.set_exception(failure)
            self._started.exception()  # retrieved: nobody need be waiting
            self._stop_asked.set()
        else:
            self._announcer.say("cluster", "done", f"ready after {self._clock.monotonic_s() - began_s:.1f} s")
            self._started.set_result(None)
            on_up(status)

    async def _shut_down(self, cluster: Cluster) -> None:
        for change in self._changes:
            change.cancel()
        if self._changes:
            await asyncio.wait(self._changes)
        await cluster.stop()
        self._announcer.say("cluster", "done", "stopped")

    def _commands(self, cluster: Cluster) -> dict[str, Callable[[Mapping[str, Any]], Any]]:
        async def wait(_: Mapping[str, Any]) -> Answer:
            await asyncio.shield(self._started)
            return await cluster.status()

        async def status(_: Mapping[str, Any]) -> Answer:
            return await cluster.status()

        async def scale(request: Mapping[str, Any]) -> Answer:
            replicas, workers = request.get("replicas"), request.get("workers")
            if not (isinstance(replicas, int) and replicas > 0 and isinstance(workers, int | None)):
                raise ControlError("scale needs a number of replicas, one at least")
            await asyncio.shield(self._started)
            with self._change():
                await cluster.fleet.scale(replicas, workers)
            return await cluster.status()

        async def restart(_: Mapping[str, Any]) -> Answer:
            await asyncio.shield(self._started)
            with self._change():
                await cluster.fleet.restart()
            return await cluster.status()

        async def down(_: Mapping[str, Any]) -> Answer:
            self._stop_asked.set()
            await self._stopped.wait()
            return {}

        return {"wait": wait, "status": status, "scale": scale, "restart": restart, "down": down}

    @contextlib.contextmanager
    def _change(self) -> Iterator[None]:
        """Let a stop interrupt what this task does inside the block: it then raises ControlError."""
        if self._stop_asked.is_set():
            raise ControlError("the cluster is being stopped")
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("only a task changes the cluster")
        self._changes.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if not self._stop_asked.is_set():
                raise
            task.uncancel()
            raise ControlError("the cluster is being stopped") from None
        finally:
            self._changes.discard(task)

    @contextlib.contextmanager
    def _signals(self, cluster: Cluster) -> Iterator[None]:
        """Stop at the first signal; at the next Ctrl-C, kill what is still draining."""

        def heard(number: signal.Signals) -> None:
            if not self._stop_asked.is_set():
                self._announcer.say("cluster", "note", f"{number.name}: stopping")
                self._stop_asked.set()
            elif number == signal.SIGINT:
                self._announcer.say("cluster", "note", "SIGINT again: killing what is left")
                cluster.kill()

        loop = asyncio.get_running_loop()
        watched = [
            number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if not _is_nohup(number)
        ]
        for number in watched:
            loop.add_signal_handler(number, heard, number)
        try:
            yield
        finally:
            for number in watched:
                loop.remove_signal_handler(number)


def _is_nohup(number: signal.Signals) -> bool:
    return number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN
