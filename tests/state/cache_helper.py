"""A process that loads a cache entry and never finishes, for tests to kill: `… -m tests.state.cache_helper`.

Says `loading` once it is the one who loads.
"""

import asyncio
import sys

from app.core.settings import load_settings
from app.state.kit import open_kit
from tests.state.cached_things import my_list
from tests.waiting import until


async def load() -> bytes:
    """Load for ever."""
    sys.stdout.write("loading\n")
    sys.stdout.flush()
    await asyncio.Event().wait()
    return b""


async def run() -> None:
    """Wait until an entry may be leased, and load it."""
    async with open_kit(load_settings()) as kit:
        await until(lambda: kit.redis.health.status == "pass")
        await kit.cache.read(my_list(), load)


if __name__ == "__main__":
    asyncio.run(run())
