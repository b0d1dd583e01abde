"""What claiming costs does not depend on how many jobs wait."""

import statistics
import time

import pytest

from app.core.moments import to_milliseconds
from app.state.job_claims import JobClaims
from app.state.job_documents import NewJob
from app.state.job_reconcile import JobReconciler
from app.state.job_run import Handler, Run
from app.state.kit import StateKit
from tests.cluster.counts import full, show
from tests.engines import RedisEngine

T = "test.job"
FEW, MANY = 100, full(100_000, 3_000)
CLAIMS = 40


async def nothing(run: Run) -> None:
    return


async def fill(kit: StateKit, count: int) -> None:
    for start in range(0, count, 500):
        rows = [NewJob(T, {"n": n}).document(kit.clock.now()) for n in range(start, min(start + 500, count))]
        await kit.mongo.collection("jobs").insert_many(rows)
        await kit.job_index.add(rows, now_ms=to_milliseconds(kit.clock.now()))


async def claim_ms(kit: StateKit) -> float:
    """Return the median of what finding and claiming one job takes."""
    handlers = {T: Handler(T, nothing)}
    claims = JobClaims(
        mongo=kit.mongo,
        index=kit.job_index,
        pauses=kit.job_pauses,
        transactions=kit.transactions,
        clock=kit.clock,
        worker="worker-test",
        handlers=handlers,
    )
    took = []
    for _ in range(CLAIMS):
        started_s = time.perf_counter()
        found = await claims.candidates({T: 1}, limit=1)
        run = await claims.claim(found.rows[0])
        await claims.claimed(found.rows)
        took.append((time.perf_counter() - started_s) * 1000)
        assert run is not None
        await run.complete(None)
        await claims.ended(run)
    return statistics.median(took)


@pytest.mark.timeout(600)
@pytest.mark.settings(mongo_timeout_s=30)
async def test_a_claim_costs_the_same_with_a_hundred_times_as_many_jobs_waiting(kit: StateKit) -> None:
    await fill(kit, FEW)
    few_ms = await claim_ms(kit)
    await fill(kit, MANY)
    many_ms = await claim_ms(kit)
    show(f"claim with {FEW} waiting {few_ms:.1f} ms, with {MANY} {many_ms:.1f} ms")
    assert many_ms < 5 * few_ms  # a scan of so many takes fifteen times as long, and more


@pytest.mark.timeout(600)
@pytest.mark.settings(mongo_timeout_s=30)
async def test_an_emptied_index_is_rebuilt_whole(kit: StateKit, redis_engine: RedisEngine) -> None:
    await fill(kit, MANY)
    redis_engine.flush()
    started_s = time.perf_counter()
    reconciler = JobReconciler(mongo=kit.mongo, index=kit.job_index, clock=kit.clock)
    await reconciler.reconcile()
    show(f"index of {MANY} jobs rebuilt in {time.perf_counter() - started_s:.1f} s")
    depths = await kit.job_index.depths(now_ms=to_milliseconds(kit.clock.now()))
    assert depths[T].ready + depths[T].later == MANY
    assert await kit.job_index.is_whole()
