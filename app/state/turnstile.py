"""One task at a time through a named gate, inside one process.

For writers that compete for one document by compare-and-set: of a hundred in this process one tries, and the
others wait for their turn instead of losing to it. It saves duplicate work and decides nothing: replicas
still compete with each other, and what makes them right is the filter of their updates.

Bounded: at most WAITING_MAX wait for one name, none longer than WAIT_S. A name takes up memory only while
somebody holds or awaits it. O(1). Fair: first come, first served.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.core.errors import ConflictError

WAITING_MAX = 256
WAIT_S = 4.0
"""Below Nginx's read timeout with room for the write itself."""


class CrowdedError(ConflictError):
    """Too many writes of one document are queued here, or they take too long. Nothing was changed."""

    code, title = "lock_held", "Too many writers"

    def __init__(self) -> None:
        """Ask for a retry in a second."""
        super().__init__(
            "Many other requests are changing this document. Nothing was changed; try again shortly.",
            headers={"Retry-After": "1"},
        )


class _Gate:
    __slots__ = ("lock", "users")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0


class Turnstile:
    """Gates by name. One a primitive that needs it."""

    def __init__(self) -> None:
        """No gate exists until somebody comes."""
        self._gates: dict[str, _Gate] = {}

    def __len__(self) -> int:
        """How many names are held or awaited."""
        return len(self._gates)

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[bool]:
        """Hold the gate called `name` for the length of the block, which is told whether it had to wait.

        Raises CrowdedError when WAITING_MAX are there already or WAIT_S is over.
        """
        gate = self._gates.setdefault(name, _Gate())
        if gate.users > WAITING_MAX:
            raise CrowdedError
        waits = gate.users > 0
        gate.users += 1
        try:
            if waits:
                await _wait_for(gate)
            else:
                await gate.lock.acquire()  # free, since nobody is here: no timer for what returns at once
            try:
                yield waits
            finally:
                gate.lock.release()
        finally:
            gate.users -= 1
            if not gate.users:
                del self._gates[name]


async def _wait_for(gate: _Gate) -> None:
    try:
        async with asyncio.timeout(WAIT_S):
            await gate.lock.acquire()
    except TimeoutError:
        raise CrowdedError from None
