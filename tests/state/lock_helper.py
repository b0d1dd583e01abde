"""A process that holds a lock, for tests to freeze or kill: `… -m tests.state.lock_helper MODE NAME LEASE_S`.

Takes the lock, then within a guarded write sets `by` of the document NAME in `guarded` to its token, says
`written TOKEN`, and waits for a line on stdin before the write may commit. In the end it says how the write
ended: `ok`, or the name of the error; then it ends by itself.

MODE `obedient` writes in the lock's block, as everybody should, and is cancelled with it. MODE `deaf` writes
in a task that outlives the block, so that nothing but MongoDB stops it.
"""

import asyncio
import sys
from contextlib import suppress
from typing import Any

from app.core.errors import CargoFlowError
from app.core.settings import load_settings
from app.state.held_lock import Lock, LockLostError
from app.state.kit import StateKit, open_kit


def say(line: str) -> None:
    """Tell the test; it reads line by line."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def said_on_stdin() -> None:
    """Return once the test has sent a line."""
    line: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().add_reader(sys.stdin, lambda: line.done() or line.set_result(None))
    try:
        await line
    finally:
        asyncio.get_running_loop().remove_reader(sys.stdin)


async def write(kit: StateKit, lock: Lock, name: str) -> None:
    """Write under the lock, as slowly as the test wants."""

    async def work(session: Any) -> None:
        await kit.mongo.collection("guarded").update_one(
            {"_id": name}, {"$set": {"by": lock.token}}, session=session
        )
        say(f"written {lock.token}")
        await said_on_stdin()

    await lock.write(work)


async def run(mode: str, name: str, lease_s: float) -> None:
    """Hold the lock and write."""
    async with open_kit(load_settings()) as kit:
        outcome = "ok"
        try:
            if mode == "obedient":
                async with kit.locks.hold(name, lease_s=lease_s) as lock:
                    await write(kit, lock, name)
            else:
                async with asyncio.TaskGroup() as tasks:
                    with suppress(LockLostError):
                        async with kit.locks.hold(name, lease_s=lease_s) as lock:
                            tasks.create_task(write(kit, lock, name))
                            await asyncio.Event().wait()
        except* CargoFlowError as group:
            outcome = type(group.exceptions[0]).__name__
        say(outcome)


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], sys.argv[2], float(sys.argv[3])))
