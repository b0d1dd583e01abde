"""One load at a time of each name inside one process, shared by those who came before it began.

A caller never gets what was loaded before it asked: a load that is under way may have read before a write
that the caller knows of. So whoever finds one under way waits for the next; however many wait, they are
served by two loads. Each runs in the task of a caller: if that one leaves, the next in line loads.

A name takes up memory only while somebody is here. O(1).
"""

import asyncio
from collections.abc import Awaitable, Callable


class _Gate:
    __slots__ = ("begun", "lock", "outcome", "users")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0
        self.begun = 0
        self.outcome: bytes | Exception | None = None


class SharedLoads:
    """Loads by name. One a primitive that needs it."""

    def __init__(self) -> None:
        """No gate exists until somebody comes."""
        self._gates: dict[str, _Gate] = {}

    async def load(self, name: str, load: Callable[[], Awaitable[bytes]]) -> bytes:
        """Return what a load that began after this call returned. Raises what it raised."""
        gate = self._gates.setdefault(name, _Gate())
        gate.users += 1
        came = gate.begun
        try:
            async with gate.lock:
                if gate.begun == came or gate.outcome is None:
                    await self._load(gate, load)
                if isinstance(gate.outcome, Exception):
                    raise gate.outcome.with_traceback(None)
                assert gate.outcome is not None  # noqa: S101  # _load leaves one, or raises
                return gate.outcome
        finally:
            gate.users -= 1
            if not gate.users:
                del self._gates[name]

    async def _load(self, gate: _Gate, load: Callable[[], Awaitable[bytes]]) -> None:
        gate.begun += 1
        gate.outcome = None
        try:
            gate.outcome = await load()
        except Exception as error:  # noqa: BLE001  # whatever it is, all who wait for it are told
            gate.outcome = error
