"""A worker with handlers for tests, to be frozen and killed: `python -m tests.state.job_worker [EVERY_S]`.

Types: `test.count` adds one to `effects`, by the payload's `n`, and completes, in one transaction;
`test.slow` does so after a while; `test.poison` kills its worker; `test.held` writes in its commit, says
`written ID`, and waits for the first line on stdin before that may go on, then says how it ended. With
EVERY_S there is a schedule, whose ticks are counted in `effects` as well.
"""

import asyncio
import os
import signal
import sys
from typing import Any

from app.core.settings import load_settings
from app.state.job_run import Handler, JobLostError, Run
from app.state.job_worker import work_on_jobs
from app.state.kit import StateKit, open_kit
from app.state.schedule import COLLECTION, Scheduled
from tests.state.lock_helper import say

LEASE_S = 2.0
QUICK = {"lease_s": LEASE_S, "backoff_first_s": 0.2, "backoff_longest_s": 1.0, "concurrency": 8}


async def count(kit: StateKit, run: Run) -> None:
    """The effect that must be there once."""

    async def work(session: Any) -> None:
        await kit.mongo.collection("effects").update_one(
            {"_id": run.job.payload.get("n", run.job.payload.get("tick"))},
            {"$inc": {"count": 1}},
            upsert=True,
            session=session,
        )

    await run.commit(work)


def handlers(kit: StateKit) -> list[Handler]:
    """Return the handlers that tests use."""
    go_on = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, go_on.set)

    async def counting(run: Run) -> None:
        await count(kit, run)

    async def slow(run: Run) -> None:
        await asyncio.sleep(run.job.payload["takes_s"])
        await count(kit, run)

    async def poison(run: Run) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    async def held(run: Run) -> None:
        async def work(session: Any) -> None:
            effects = kit.mongo.collection("effects")
            await effects.update_one(
                {"_id": run.job.id}, {"$inc": {"count": 1}}, upsert=True, session=session
            )
            say(f"written {run.job.id}")
            await go_on.wait()

        # in a task of its own, which the lost lease does not cancel: nothing but MongoDB stops it
        await asyncio.shield(asyncio.create_task(commit(run, work)))

    async def commit(run: Run, work: Any) -> None:
        outcome = "ok"
        try:
            await run.commit(work)
        except JobLostError:
            outcome = "JobLostError"
        say(outcome)

    return [
        Handler("test.count", counting, **QUICK),
        Handler("test.slow", slow, **QUICK),
        Handler("test.poison", poison, crashes_max=3, **QUICK),
        Handler("test.held", held, lease_s=LEASE_S, backoff_first_s=600, concurrency=8),
    ]


async def main(every_s: int) -> None:
    """Work until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    beat = Scheduled("beat", every_s or 1, "test.count", catch_up=30, overlap=True)
    async with open_kit(load_settings()) as kit:
        await work_on_jobs(
            kit, stop, handlers=handlers(kit), outboxes=(COLLECTION, "boxes"), table=[beat] if every_s else []
        )


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
