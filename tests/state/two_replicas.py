"""Two replicas for tests whose own loop is Hypothesis."""

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from itertools import count
from typing import Any, TypeVar

from app.core.settings import Settings
from app.state.kit import StateKit, open_kit
from app.state.session_documents import Owner
from tests.waiting import until

T = TypeVar("T")


class World:
    """Two replicas whose loop runs in a thread of its own, so that they beat while Hypothesis thinks."""

    def __init__(self, given: Settings) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="two-replicas")
        self._leave = asyncio.Event()
        self._opened: asyncio.Task[None]
        self.kits: list[StateKit] = []
        self.owners = (Owner("ten_a", f"usr_{n}") for n in count())
        self._thread.start()
        self.run(self._open(given))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def close(self) -> None:
        self.run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _open(self, given: Settings) -> None:
        ready = asyncio.Event()

        async def hold() -> None:
            async with AsyncExitStack() as stack:
                self.kits = [await stack.enter_async_context(open_kit(given)) for _ in range(2)]
                ready.set()
                await self._leave.wait()

        self._opened = asyncio.create_task(hold())
        await ready.wait()
        for kit in self.kits:
            await until(lambda kit=kit: kit.mongo.health.status == "pass" == kit.redis.health.status)

    async def _close(self) -> None:
        self._leave.set()
        await self._opened
