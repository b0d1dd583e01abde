"""Jobs while Redis is gone, after it was emptied, and when whoever took one from the index died."""

from datetime import timedelta

from app.core.moments import to_milliseconds
from app.state.job_documents import NewJob
from app.state.job_run import Handler, Run
from app.state.kit import StateKit
from tests.engines import RedisEngine
from tests.state.working import until_over, working

T = "test.job"


class Recorder:
    """A handler that remembers what it ran."""

    def __init__(self) -> None:
        self.ran: list[int] = []

    async def __call__(self, run: Run) -> None:
        self.ran.append(run.job.payload["n"])


async def test_jobs_are_found_while_redis_is_gone_and_after(
    kit: StateKit, other_kit: StateKit, redis_engine: RedisEngine
) -> None:
    record = Recorder()
    before = [await kit.jobs.enqueue(NewJob(T, {"n": n})) for n in range(3)]
    redis_engine.kill()
    during = [await other_kit.jobs.enqueue(NewJob(T, {"n": n})) for n in range(3, 6)]
    async with working(kit, Handler(T, record)):
        for job_id in (*before, *during):
            await until_over(kit, job_id)
        redis_engine.start()
        await until_over(kit, await other_kit.jobs.enqueue(NewJob(T, {"n": 6})))
    assert sorted(record.ran) == list(range(7))


async def test_a_wiped_redis_is_filled_again(kit: StateKit, redis_engine: RedisEngine) -> None:
    record = Recorder()
    later = kit.clock.now() + timedelta(seconds=2)
    ids = [await kit.jobs.enqueue(NewJob(T, {"n": n}, run_at=later if n % 2 else None)) for n in range(20)]
    redis_engine.flush()
    async with working(kit, Handler(T, record)):
        for job_id in ids:
            await until_over(kit, job_id)
    assert sorted(record.ran) == list(range(20))


async def test_a_candidate_whose_taker_died_comes_up_again(kit: StateKit, redis_engine: RedisEngine) -> None:
    job_id = await kit.jobs.enqueue(NewJob(T, {"n": 1}))
    now_ms = to_milliseconds(kit.clock.now())

    async def taken(at_ms: int) -> list[str]:
        return [row["_id"] for row in (await kit.job_index.take({T: 5}, limit=5, now_ms=at_ms)).entries]

    assert await taken(now_ms) == [job_id]
    assert await taken(now_ms) == []
    assert await taken(now_ms + 11_000) == [job_id]
