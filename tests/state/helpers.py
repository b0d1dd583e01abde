"""Helper processes of the tests here: what they say, and the signals they are sent."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from app.core.settings import Settings
from tests.engines import as_environment


class Helper:
    """A process of `tests.state.lock_helper` or `tests.state.transaction_helper`, with something uncommitted.

    MongoDB's timeout is long in it: its lease alone is what stops it.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def says(self) -> str:
        assert self._process.stdout is not None
        async with asyncio.timeout(30):
            while line := (await self._process.stdout.readline()).decode().strip():
                if not line.startswith("{"):  # its log
                    return line
        return "nothing"

    def send(self, sent: signal.Signals) -> None:
        self._process.send_signal(sent)

    def go_on(self) -> None:
        """Let its write try to commit."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")


@asynccontextmanager
async def helper(settings: Settings, module: str, *arguments: str) -> AsyncIterator[Helper]:
    """Run `tests.state.<module>` until the block ends."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"tests.state.{module}", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={
            **os.environ,
            **as_environment(settings),
            "REPLICA_NAME": "replica-helper",
            "MONGO_TIMEOUT_S": "30",
        },
    )
    try:
        yield Helper(process)
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
            process.kill()
        await process.communicate()
