"""One child process from its start to its end, and nothing of it left afterwards."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from app.cluster.log_files import last_lines, open_for_append

_TETHER = Path(__file__).with_name("tether.py")


@dataclass(frozen=True)
class Program:
    """What to run, how to know that it serves, and how to end it."""

    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str] = field(repr=False)
    log: Path
    ready: Callable[["Child"], Awaitable[bool]]
    """Says whether it serves.

    Answers within a few seconds and doesn't raise for a program that does not serve yet.
    """
    address: str = ""
    """Where it listens, for the person who reads along."""
    stop_signals: tuple[tuple[signal.Signals, float], ...] = ((signal.SIGTERM, 30.0),)
    """The signals that ask it to end, one after another, each with the seconds it gets.

    SIGKILL follows the last.
    """


class Child:
    """A started program.

    It leads a session of its own: the terminal's Ctrl-C is not for it, and its whole group can be ended.
    """

    def __init__(self, program: Program, process: asyncio.subprocess.Process, log_start: int) -> None:
        """Use `spawn`."""
        self._program = program
        self._process = process
        self._log_start = log_start
        self._spawned_s = asyncio.get_running_loop().time()
        self._group_ended = False

    @classmethod
    async def spawn(cls, program: Program) -> "Child":
        """Start the program, its output appended to its log; on Linux it dies with this process.

        Raises OSError when the program can't be executed (on Linux that shows as exit code 1 and in the log
        instead).
        """
        argv = program.argv
        if sys.platform == "linux":
            argv = (
                sys.executable,
                "-I",
                "-S",
                str(_TETHER),
                str(os.getpid()),
                str(int(signal.SIGTERM)),
                *argv,
            )
        with open_for_append(program.log) as log:
            log_start = log.tell()
            process = await asyncio.create_subprocess_exec(
                *argv,
                cwd=program.cwd,
                env=program.env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        return cls(program, process, log_start)

    @property
    def pid(self) -> int:
        """Its pid, which is also its group's."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it is gone."""
        return self._process.returncode is not None

    @property
    def age_s(self) -> float:
        """Seconds since it was spawned."""
        return asyncio.get_running_loop().time() - self._spawned_s

    async def wait(self) -> str:
        """Return how it ended, in words, once it has; what is left of its group is killed."""
        code = await self._process.wait()
        self._kill_group()
        if code >= 0:
            return f"exited with {code}"
        try:
            return f"was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"was ended by signal {-code}"

    async def wait_at_most(self, timeout_s: float) -> None:
        """Return when it is gone or the time is up."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._process.wait()

    async def end(self) -> None:
        """Ask it to end, as its program wants to be asked; kill it if it doesn't. Returns when it is gone."""
        for number, grace_s in self._program.stop_signals:
            if self.ended:
                break
            self._send(number)
            self._send(signal.SIGCONT)  # one that was stopped can't end before it goes on
            await self.wait_at_most(grace_s)
        self._kill_group()
        await self._process.wait()

    def kill(self) -> None:
        """End it and its group at once; does not wait."""
        self._kill_group()

    def last_words(self, count: int = 15) -> list[str]:
        """Return the last lines it has written to its log since this start."""
        return last_lines(self._program.log, count, start=self._log_start)

    def _send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def _kill_group(self) -> None:
        # once the leader is gone, its number is only certain to mean this group until the group is gone, too
        if self._group_ended:
            return
        self._group_ended = self.ended
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
