"""A process that has a keyed effect: `… -m tests.state.keyed_helper KEY FINGERPRINT NAME`.

Within the transaction it inserts the thing NAME, says `written` and waits for a line on stdin before it may
commit; then it says `committed` and waits to be killed.
"""

import asyncio
import sys

from app.core.settings import load_settings
from app.state.keyed import Answer, Claim, Keyed
from app.state.kit import open_kit
from app.state.mongo import ClientSession
from tests.state.lock_helper import said_on_stdin, say


def answer_of(name: str) -> Answer:
    """Return what the tests expect."""
    return Answer(201, b'{"name":"%b"}' % name.encode(), {"Location": f"/things/{name}"})


async def run(key: str, fingerprint: str, name: str) -> None:
    """Make the thing, as slowly as the test wants."""
    async with open_kit(load_settings()) as kit:

        async def work(session: ClientSession) -> str:
            await kit.mongo.collection("things").insert_one({"_id": name}, session=session)
            say("written")
            await said_on_stdin()
            return name

        await kit.idempotency.run(Keyed(Claim(key, (fingerprint,)), answer_of), work)
        say("committed")
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(run(*sys.argv[1:]))
