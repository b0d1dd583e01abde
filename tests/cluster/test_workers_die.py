"""Workers that are killed and frozen in the middle of jobs, and stores that forget: every effect once."""

import asyncio
import signal
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.core.moments import timestamp
from app.core.settings import Settings
from app.state.job_documents import SLICES, NewJob
from app.state.job_run import Handler, Run
from app.state.kit import StateKit
from tests.cluster.counts import full, show
from tests.engines import RedisEngine
from tests.state.working import (
    WorkerProcess,
    killed_one_by_one,
    restarted,
    worker_processes,
    working,
)

pytestmark = pytest.mark.settings(mongo_timeout_s=20)  # of the test itself, which counts whole collections

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
JOBS = full(10_000, 1_000)
KILL_EVERY_S = 5
FROZEN_WORKERS = full(20, 2)
JOBS_A_FROZEN_WORKER = 5
GOOD_JOBS = full(1_000, 100)
TICKS = full(60, 10)


@pytest.fixture(autouse=True)
async def effects(kit: StateKit) -> None:
    """Make the collection: a transaction that did would be in the way of the others."""
    await kit.mongo.collection("effects").insert_one({"_id": "none", "count": 0})


async def enqueue(kit: StateKit, job_type: str, count: int, **payload: Any) -> None:
    gate = asyncio.Semaphore(20)

    async def one(n: int) -> None:
        async with gate:
            await kit.jobs.enqueue(NewJob(job_type, {"n": n, **payload}))

    await asyncio.gather(*(one(n) for n in range(count)))


async def counts(kit: StateKit) -> dict[Any, int]:
    rows = await kit.mongo.collection("effects").find({"_id": {"$ne": "none"}}).to_list(None)
    return {row["_id"]: row["count"] for row in rows}


async def in_state(kit: StateKit, *states: str) -> int:
    return int(await kit.mongo.collection("jobs").count_documents({"state": {"$in": states}}))


async def any_is_unfinished(kit: StateKit) -> bool:
    """Say so by looks that are quick however many there are, for a test's sake, not to be in the way."""
    jobs = kit.mongo.collection("jobs")
    if await jobs.find_one({"lease_expires_at": {"$gt": LONG_AGO}}):
        return True
    for number in range(SLICES):
        if await jobs.find_one({"slice": number}):
            return True
    return await in_state(kit, "pending", "processing", "failed") > 0


async def until_all_are_over(kit: StateKit, *, timeout_s: float) -> None:
    async with asyncio.timeout(timeout_s):
        while await any_is_unfinished(kit):  # noqa: ASYNC110  # a store
            await asyncio.sleep(0.3)


@pytest.mark.timeout(900)
async def test_every_job_has_its_effect_once_though_workers_are_killed(
    kit: StateKit, settings: Settings
) -> None:
    await enqueue(kit, "test.slow", JOBS, takes_s=0.02)
    async with (
        worker_processes(settings, 3) as workers,
        killed_one_by_one(workers, every_s=KILL_EVERY_S) as killed,
    ):
        await until_all_are_over(kit, timeout_s=600)
    assert killed
    assert await counts(kit) == dict.fromkeys(range(JOBS), 1)
    assert await in_state(kit, "completed") == JOBS
    crashes = [row["crashes"] async for row in kit.mongo.collection("jobs").find({"crashes": {"$gt": 0}})]
    show(f"{JOBS} jobs, {len(killed)} kills, {len(crashes)} jobs were under way in one")


@pytest.mark.parametrize("succeeded", [False, True])
async def test_a_worker_frozen_beyond_its_lease_commits_nothing_when_it_wakes(
    kit: StateKit, settings: Settings, *, succeeded: bool
) -> None:
    async def finish(run: Run) -> None:
        async def work(session: Any) -> None:
            await kit.mongo.collection("effects").insert_one(
                {"_id": run.job.id, "count": 100}, session=session
            )

        await run.commit(work)

    successor = Handler("test.held", finish)
    for _ in range(0, FROZEN_WORKERS, 2):
        ids = {await kit.jobs.enqueue(NewJob("test.held", {})) for _ in range(JOBS_A_FROZEN_WORKER)}
        mine = {"_id": {"$in": list(ids)}}
        async with worker_processes(settings, 1, mongo_timeout_s=30) as (worker,):
            assert {await worker.says() for _ in ids} == {f"written {job_id}" for job_id in ids}
            worker.send(signal.SIGSTOP)
            rows = await kit.mongo.collection("jobs").find(mine).to_list(None)
            over_at = max(row["lease_expires_at"] for row in rows) + timedelta(milliseconds=50)
            while kit.clock.now() < over_at:  # noqa: ASYNC110  # a clock
                await asyncio.sleep(0.02)
            if succeeded:
                async with working(kit, successor):
                    await until_rescued(kit, mine)
                    for job_id in ids:
                        await kit.job_desk.retry(tenant_id="", job_id=job_id)
                    await until_all_are_over(kit, timeout_s=30)
            worker.go_on()
            worker.send(signal.SIGCONT)
            assert [await outcome_of(worker) for _ in ids] == ["JobLostError"] * len(ids)
        effects = await counts(kit)
        assert {job_id: effects.get(job_id) for job_id in ids} == dict.fromkeys(
            ids, 100 if succeeded else None
        )
        await kit.mongo.collection("jobs").delete_many(mine)


async def outcome_of(worker: WorkerProcess) -> str:
    """Return how a commit ended. A worker that was taken for dead tries it anew, and writes again."""
    while (line := await worker.says()).startswith("written"):
        pass
    return line


async def until_rescued(kit: StateKit, mine: dict[str, Any]) -> None:
    async with asyncio.timeout(30):
        while await kit.mongo.collection("jobs").count_documents({**mine, "state": "processing"}):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_a_job_that_kills_its_worker_ends_in_the_dead_letter_and_takes_no_other_with_it(
    kit: StateKit, settings: Settings
) -> None:
    await enqueue(kit, "test.slow", GOOD_JOBS, takes_s=0.05)
    poison = await kit.jobs.enqueue(NewJob("test.poison", {}, priority=1))
    async with worker_processes(settings, 2) as workers, restarted(workers):
        await until_all_are_over(kit, timeout_s=240)
    dead = await kit.jobs.get("", poison)
    assert (dead.state, dead.attempts, dead.crashes) == ("dead", 0, 3)
    assert [error.kind for error in dead.errors] == ["crash"] * 3
    assert await counts(kit) == dict.fromkeys(range(GOOD_JOBS), 1)
    assert await in_state(kit, "completed") == GOOD_JOBS


async def test_a_redis_that_is_wiped_in_the_middle_costs_no_job(
    kit: StateKit, settings: Settings, redis_engine: RedisEngine
) -> None:
    await enqueue(kit, "test.slow", GOOD_JOBS * 3, takes_s=0.02)
    async with worker_processes(settings, 2) as workers, restarted(workers):
        async with asyncio.timeout(120):
            while len(await counts(kit)) < GOOD_JOBS:  # noqa: ASYNC110  # a store
                await asyncio.sleep(0.05)
        redis_engine.flush()
        left = await in_state(kit, "pending")
        await until_all_are_over(kit, timeout_s=240)
    assert left > 0
    assert await counts(kit) == dict.fromkeys(range(GOOD_JOBS * 3), 1)


@pytest.mark.timeout(400)
async def test_every_tick_has_one_run_though_schedulers_are_killed(kit: StateKit, settings: Settings) -> None:
    ticks = kit.mongo.collection("schedule_ticks")
    async with worker_processes(settings, 3, "1") as workers:
        last = int(kit.clock.now().timestamp()) + TICKS
        async with killed_one_by_one(workers, every_s=2) as killed, asyncio.timeout(TICKS * 2 + 60):
            while await ticks.find_one({"tick": last}) is None:  # noqa: ASYNC110  # a store
                await asyncio.sleep(0.1)
        async with restarted(workers), asyncio.timeout(60):
            wanted = {timestamp(row["due_at"]) for row in await ticks.find({}).to_list(None)}
            while wanted - set(await counts(kit)):  # noqa: ASYNC110  # a store
                await asyncio.sleep(0.1)
    numbers = sorted(row["tick"] for row in await ticks.find({}).to_list(None))
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    runs = await counts(kit)
    assert wanted <= set(runs)
    assert set(runs.values()) == {1}
    assert killed
    show(f"{len(wanted)} ticks, {len(killed)} kills")
