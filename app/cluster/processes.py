"""One supervised process: started, watched, started again when it dies, ended in a bounded time.

A process's whole life is one task, `_live`; nobody else spawns or forgets a child, so starts and stops can't
cross. The others ask: `begin`, `wait_ready`, `stop`.

    begin ──> starting ──ready──> serving ──dies──> waiting 0.5, 1, 2 … 10 s ──> starting …
                 └──dies──> waiting …                    (0.5 s again after 10 s alive)
    stop: from anywhere to ended
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from app.cluster.child import Child, Program
from app.cluster.events import Announcer, State
from app.cluster.failures import StartFailedError
from app.cluster.journal import Journal
from app.cluster.ports import Ports, is_free
from app.core.clock import Clock

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 10.0
_STEADY_AFTER_S = 10.0
_READY_POLL_S = 0.1
_START_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Surroundings:
    """What every process of one cluster shares."""

    journal: Journal
    announcer: Announcer
    ports: Ports
    clock: Clock
    group: asyncio.TaskGroup


Recipe = Callable[[int], Program]
"""Makes the program for a port; processes that listen on none ignore it."""

Hook = Callable[["Process"], Awaitable[None]]


async def _nothing(_: "Process") -> None:
    return


class Process:
    """One name in the cluster, behind it one child after another."""

    def __init__(
        self,
        name: str,
        recipe: Recipe,
        surroundings: Surroundings,
        *,
        port: int = 0,
        keeps_port: bool = False,
        when_ready: Hook = _nothing,
    ) -> None:
        """`port` is where it listens, changed when another program takes it; 0: nowhere, or not its choice.

        With `keeps_port` it is not changed any more once it has served there: others were told. `when_ready`
        is awaited each time it has come to serve.
        """
        self.name = name
        self.port = port
        self._keeps_port = keeps_port
        self._recipe = recipe
        self._around = surroundings
        self._when_ready = when_ready
        self._child: Child | None = None
        self.serving = False
        """Whether the running child has come to serve."""
        self._stop_asked = asyncio.Event()
        self._served: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._life: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The running child's pid."""
        return self._child.pid if self._child and not self._child.ended else None

    def begin(self) -> None:
        """Start it, and again whenever it dies, until `stop`. A stopped process may begin anew."""
        self._stop_asked.clear()
        self._served = asyncio.get_running_loop().create_future()
        self._life = self._around.group.create_task(self._live(), name=f"process {self.name}")

    async def wait_ready(self) -> None:
        """Return once it serves. Raises StartFailedError if its first child dies before, or 60 s are over.

        Either way it goes on being started until somebody calls `stop`.
        """
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                await asyncio.shield(self._served)
        except TimeoutError:
            raise self._failure(f"runs, but is not ready after {_START_TIMEOUT_S:.0f} s") from None

    async def stop(self) -> None:
        """End it; returns when nothing of it is left. Harmless when it is not running."""
        self._stop_asked.set()
        if self._child and not self._child.ended:
            self._say("busy", "stopping")
            await self._child.end()
        if self._life:
            # unlike `await self._life`, this may be cancelled without cancelling the life
            await asyncio.wait({self._life})
            self._life = None
            self._say("done", "stopped")

    def kill(self) -> None:
        """End it at once, without its own clean-up; `stop` must have been asked for."""
        if self._child:
            self._child.kill()

    async def _live(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._stop_asked.is_set():
            began_s = self._around.clock.monotonic_s()
            end = await self._one_life()
            if self._stop_asked.is_set():
                break
            if self._must_move():
                self._say("note", f"{end}; another program has taken port {self.port}, trying another")
                continue
            self._fail_unserved(self._failure(end))
            if self._around.clock.monotonic_s() - began_s > _STEADY_AFTER_S:
                pause_s = FIRST_PAUSE_S
            self._say("note", f"{end}; starting it again in {pause_s:g} s")
            await self._pause(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        self._fail_unserved(self._failure("was stopped before it was ready"))

    async def _one_life(self) -> str:
        """Run one child; return how it ended."""
        self._say("busy", "starting")
        began_s = self._around.clock.monotonic_s()
        try:
            if self._must_move():
                self.port = self._around.ports.pick()
            program = self._recipe(self.port)
            child = self._child = await Child.spawn(program)
        except StartFailedError as failure:
            return failure.reason
        except OSError as error:
            return f"could not be started: {error}"
        try:
            self._around.journal.started(self.name, child.pid, program.cwd)
            if self._stop_asked.is_set():
                await child.end()
            elif await self._comes_to_serve(child, program):
                await self._serves(program, after_s=self._around.clock.monotonic_s() - began_s)
            served = self.serving
            end = await child.wait()
            return end if served else f"{end} before it was ready"
        finally:
            self.serving = False
            if not child.ended:  # this task was cancelled
                child.kill()
            self._around.journal.ended(self.name)

    async def _serves(self, program: Program, *, after_s: float) -> None:
        self.serving = True
        try:
            await self._when_ready(self)
        except StartFailedError as failure:
            self._say("fail", str(failure))
            self._fail_unserved(failure)
            return
        where = f" on {program.address}" if program.address else ""
        self._say("done", f"ready{where}, pid {self.pid}, after {after_s:.1f} s")
        if not self._served.done():
            self._served.set_result(None)

    async def _comes_to_serve(self, child: Child, program: Program) -> bool:
        while not child.ended and not self._stop_asked.is_set():
            if await program.ready(child):
                return not child.ended
            await child.wait_at_most(_READY_POLL_S)
        return False

    def _must_move(self) -> bool:
        told = self._keeps_port and self._served.done() and self._served.exception() is None
        return self.port != 0 and not told and not is_free(self.port)

    def _fail_unserved(self, failure: StartFailedError) -> None:
        if not self._served.done():
            self._served.set_exception(failure)
            self._served.exception()  # retrieved: nobody need be waiting

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop_asked.wait()

    def _failure(self, reason: str) -> StartFailedError:
        return StartFailedError(self.name, reason, self._child.last_words() if self._child else [])

    def _say(self, state: State, text: str) -> None:
        self._around.announcer.say(self.name, state, text)
