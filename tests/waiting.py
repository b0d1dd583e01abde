"""How tests wait for a condition, and how they hold a context open across a fixture."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

T = TypeVar("T")

_POLL_S = 0.01


async def until(condition: Callable[[], bool], *, timeout_s: float = 20.0) -> None:
    """Return once `condition()` is true; fails the test when it does not become so."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  # what is waited for lives in other processes
            await asyncio.sleep(_POLL_S)


@contextlib.asynccontextmanager
async def held_by_one_task(context: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    """Enter and leave `context` in one task.

    Task groups demand it, and a fixture's two halves run in different ones.
    """
    opened: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    leave = asyncio.Event()

    async def hold() -> None:
        try:
            async with context as value:
                opened.set_result(value)
                await leave.wait()
        except BaseException as error:
            if opened.done():
                raise
            opened.set_exception(error)

    holder = asyncio.create_task(hold())
    try:
        yield await opened
    finally:
        leave.set()
        await holder
