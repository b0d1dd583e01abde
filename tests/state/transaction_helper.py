"""A process in a transaction, for tests to freeze or kill: `… -m tests.state.transaction_helper NAME`.

Sets `by` of the document NAME in `guarded` to the number of the attempt and says `written 1`; its first
attempt then waits for a line on stdin before it may commit. In the end it says how that went: `ok`, or the
name of the error; then it ends by itself.
"""

import asyncio
import sys
from typing import Any

from app.core.errors import CargoFlowError
from app.core.settings import load_settings
from app.state.kit import open_kit
from tests.state.lock_helper import said_on_stdin, say


async def run(name: str) -> None:
    """Write in a transaction, as slowly as the test wants."""
    attempts = 0

    async with open_kit(load_settings()) as kit:

        async def work(session: Any) -> None:
            nonlocal attempts
            attempts += 1
            await kit.mongo.collection("guarded").update_one(
                {"_id": name}, {"$set": {"by": attempts}}, session=session
            )
            say(f"written {attempts}")
            if attempts == 1:
                await said_on_stdin()

        outcome = "ok"
        try:
            await kit.transactions.run(work)
        except CargoFlowError as error:
            outcome = type(error).__name__
        say(outcome)


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1]))
