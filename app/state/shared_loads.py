"""One call at a time of each name inside one process, shared by those who came before it began.

A caller never gets the outcome of a call that began before it asked: such a call may have read before a write
that the caller knows of. So whoever finds one under way waits for the next; however many wait, they are
served by two. Each runs in the task of one of its callers: if that one leaves, the next in line calls.

A name takes up memory only while somebody is here. O(1).
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class _Gate(Generic[T]):
    __slots__ = ("begun", "lock", "outcome", "users")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0
        self.begun = 0
        self.outcome: T | Exception | None = None


class SharedLoads(Generic[T]):
    """Calls by name, none of which returns None. One a purpose."""

    def __init__(self) -> None:
        """No gate exists until somebody comes."""
        self._gates: dict[str, _Gate[T]] = {}

    async def load(self, name: str, load: Callable[[], Awaitable[T]]) -> T:
        """Return what a call that began after this one returned. Raises what it raised."""
        gate = self._gates.setdefault(name, _Gate())
        gate.users += 1
        came = gate.begun
        try:
            async with gate.lock:
                if gate.begun == came or gate.outcome is None:
                    await _call(gate, load)
                if isinstance(gate.outcome, Exception):
                    raise gate.outcome.with_traceback(None)
                assert gate.outcome is not None  # noqa: S101  # _call leaves one, or raises
                return gate.outcome
        finally:
            gate.users -= 1
            if not gate.users:
                del self._gates[name]


async def _call(gate: _Gate[T], load: Callable[[], Awaitable[T]]) -> None:
    gate.begun += 1
    gate.outcome = None
    try:
        gate.outcome = await load()
    except Exception as error:  # noqa: BLE001  # whatever it is, all who wait for it are told
        gate.outcome = error
