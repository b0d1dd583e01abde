"""Jobs on the real stores: enqueuing, claiming, finishing, failing."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.core.errors import ConflictError, NotFoundError
from app.state.job_documents import NewJob
from app.state.job_run import GiveUpError, Handler, JobLostError, Run
from app.state.kit import StateKit
from tests.state.working import until_over, working
from tests.waiting import until

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
T = "test.job"


def new(n: int = 0, **fields: Any) -> NewJob:
    return NewJob(T, {"n": n}, **fields)


def handler(run: Any, **options: Any) -> Handler:
    return Handler(T, run, **{"backoff_first_s": 0.05, "backoff_longest_s": 0.1, **options})


async def row_of(kit: StateKit, job_id: str) -> dict[str, Any]:
    row = await kit.mongo.collection("jobs").find_one({"_id": job_id})
    assert row is not None
    return row


class Recorder:
    """A handler that remembers what it ran, in order."""

    def __init__(self) -> None:
        self.ran: list[int] = []

    async def __call__(self, run: Run) -> dict[str, int]:
        self.ran.append(run.job.payload["n"])
        return {"n": run.job.payload["n"]}


async def test_a_job_is_run_and_its_result_kept(kit: StateKit) -> None:
    record = Recorder()
    job_id = await kit.jobs.enqueue(new(7, tenant_id="tnt_1", user_id="usr_1"))
    async with working(kit, handler(record)):
        job = await until_over(kit, job_id, "tnt_1")
    assert (job.state, job.result, job.attempts, job.crashes) == ("completed", {"n": 7}, 0, 0)
    assert job.finished_at is not None
    assert record.ran == [7]
    row = await row_of(kit, job_id)
    assert {"slice", "lease_expires_at", "worker", "beats"}.isdisjoint(row)


async def test_a_waiting_worker_wakes_up_for_a_new_job(kit: StateKit, other_kit: StateKit) -> None:
    record = Recorder()
    async with working(kit, handler(record)):
        for n in range(5):
            await until_over(kit, await other_kit.jobs.enqueue(new(n)))
    assert record.ran == list(range(5))


async def test_a_tenant_sees_its_own_jobs_only(kit: StateKit) -> None:
    job_id = await kit.jobs.enqueue(new(tenant_id="tnt_1"))
    with pytest.raises(NotFoundError):
        await kit.jobs.get("tnt_2", job_id)
    with pytest.raises(NotFoundError):
        await kit.jobs.get("", job_id)


async def test_enqueuing_one_id_again_changes_nothing(kit: StateKit, other_kit: StateKit) -> None:
    record = Recorder()
    job = new()
    ids = await asyncio.gather(*((kit, other_kit)[n % 2].jobs.enqueue(job) for n in range(10)))
    assert set(ids) == {job.id}
    async with working(kit, handler(record)):
        await until_over(kit, job.id)
        assert await other_kit.jobs.enqueue(job) == job.id
        await until_over(kit, await kit.jobs.enqueue(new(1)))
    assert record.ran == [0, 1]


async def test_of_a_key_one_job_is_unfinished_and_a_finished_one_makes_room(
    kit: StateKit, other_kit: StateKit
) -> None:
    record = Recorder()
    ids = await asyncio.gather(*((kit, other_kit)[n % 2].jobs.enqueue(new(n, key="k")) for n in range(10)))
    assert len(set(ids)) == 1
    other_tenants = await kit.jobs.enqueue(new(99, key="k", tenant_id="tnt_2"))
    assert other_tenants not in ids
    async with working(kit, handler(record)):
        await until_over(kit, ids[0])
        await until_over(kit, other_tenants, "tnt_2")
        again = await kit.jobs.enqueue(new(1, key="k"))
        assert again != ids[0]
        await until_over(kit, again)
    assert len(record.ran) == 3


async def test_higher_priority_first_then_who_was_due_first(kit: StateKit) -> None:
    record = Recorder()
    now = kit.clock.now()
    ids = [
        await kit.jobs.enqueue(new(n, priority=priority, run_at=now - timedelta(seconds=age_s)))
        for n, priority, age_s in ((4, 0, 1), (3, 0, 9), (5, -1, 99), (1, 100, 2), (2, 5, 0))
    ]
    async with working(kit, handler(record, concurrency=1)):
        for job_id in ids:
            await until_over(kit, job_id)
    assert record.ran == [1, 2, 3, 4, 5]


async def test_a_job_is_not_run_before_its_time(kit: StateKit) -> None:
    started: list[datetime] = []

    async def note(run: Run) -> None:
        started.append(kit.clock.now())

    run_at = kit.clock.now() + timedelta(seconds=1.2)
    async with working(kit, handler(note)):
        await until_over(kit, await kit.jobs.enqueue(new(run_at=run_at)))
    assert started[0] >= run_at - timedelta(milliseconds=150)


async def test_of_many_workers_one_gets_a_job(kit: StateKit, other_kit: StateKit) -> None:
    record = Recorder()
    ids = [await kit.jobs.enqueue(new(n)) for n in range(60)]
    async with working(kit, handler(record)), working(other_kit, handler(record)):
        for job_id in ids:
            await until_over(kit, job_id)
    assert sorted(record.ran) == list(range(60))


async def test_no_more_of_a_type_run_at_once_than_allowed_and_others_go_past_it(kit: StateKit) -> None:
    running = most = 0
    release = asyncio.Event()

    async def busy(run: Run) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await release.wait()
        running -= 1

    record = Recorder()
    slow = [await kit.jobs.enqueue(NewJob("test.slow", {}, priority=9)) for _ in range(5)]
    quick = await kit.jobs.enqueue(new(1))
    async with working(kit, handler(record), Handler("test.slow", busy, concurrency=2)):
        await until_over(kit, quick)
        await until(lambda: running == 2)
        release.set()
        for job_id in slow:
            await until_over(kit, job_id)
    assert most == 2


async def test_what_fails_is_tried_again_and_then_dead_with_its_history(kit: StateKit) -> None:
    async def break_down(run: Run) -> None:
        raise RuntimeError(f"try {run.job.attempts + 1} $broke")

    job_id = await kit.jobs.enqueue(new())
    async with working(kit, handler(break_down, attempts_max=3)):
        job = await until_over(kit, job_id)
    assert (job.state, job.attempts, job.crashes) == ("dead", 3, 0)
    assert [error.message for error in job.errors] == [f"RuntimeError: try {n} $broke" for n in (1, 2, 3)]
    assert {error.kind for error in job.errors} == {"error"}


async def test_what_fails_once_is_completed_in_the_end(kit: StateKit) -> None:
    async def fail_first(run: Run) -> None:
        if run.job.attempts == 0:
            raise ValueError("not yet")

    job_id = await kit.jobs.enqueue(new())
    async with working(kit, handler(fail_first)):
        job = await until_over(kit, job_id)
    assert (job.state, job.attempts, len(job.errors)) == ("completed", 1, 1)


async def test_a_handler_can_give_up_at_once(kit: StateKit) -> None:
    async def give_up(run: Run) -> None:
        raise GiveUpError("of no use")

    async with working(kit, handler(give_up)):
        job = await until_over(kit, await kit.jobs.enqueue(new()))
    assert (job.state, job.attempts, job.errors[0].message) == ("dead", 1, "of no use")


async def test_a_handler_that_takes_too_long_is_stopped(kit: StateKit) -> None:
    async def sleep(run: Run) -> None:
        await asyncio.sleep(60)

    async with working(kit, handler(sleep, timeout_s=0.1, attempts_max=2)):
        job = await until_over(kit, await kit.jobs.enqueue(new()))
    assert (job.state, job.attempts) == ("dead", 2)
    assert [error.kind for error in job.errors] == ["timeout", "timeout"]


@pytest.mark.parametrize("result", [{"n": "x" * 70_000}, {"n": object()}, {"n": 1 << 80}])
async def test_a_result_that_cannot_be_kept_fails_the_job_and_not_the_worker(
    kit: StateKit, result: dict[str, Any]
) -> None:
    async def give(run: Run) -> dict[str, Any]:
        return result if run.job.payload["n"] == 0 else {}

    async with working(kit, handler(give, attempts_max=1)):
        assert (await until_over(kit, await kit.jobs.enqueue(new(0)))).state == "dead"
        assert (await until_over(kit, await kit.jobs.enqueue(new(1)))).state == "completed"


async def test_whatever_a_handler_raises_fails_its_job_only(kit: StateKit) -> None:
    raised = [
        ValueError("half a character: \ud800"),
        asyncio.CancelledError("by itself"),
        KeyError(),
        TimeoutError(),
    ]

    async def break_down(run: Run) -> None:
        raise raised[run.job.payload["n"]]

    ids = [await kit.jobs.enqueue(new(n)) for n in range(len(raised))]
    async with working(kit, handler(break_down, attempts_max=1)):
        jobs = [await until_over(kit, job_id) for job_id in ids]
    assert [(job.state, job.errors[0].kind, job.crashes) for job in jobs] == [("dead", "error", 0)] * 4


async def test_renewals_keep_a_job_that_takes_longer_than_its_lease(
    kit: StateKit, other_kit: StateKit
) -> None:
    starts = 0

    async def long(run: Run) -> None:
        nonlocal starts
        starts += 1
        await asyncio.sleep(3)

    job_id = await kit.jobs.enqueue(new())
    async with working(kit, handler(long, lease_s=1)), working(other_kit, handler(long, lease_s=1)):
        job = await until_over(kit, job_id)
    assert (starts, job.crashes, job.state) == (1, 0, "completed")


async def test_a_handler_whose_lease_is_lost_is_cancelled_and_what_it_reports_ignored(
    kit: StateKit, other_kit: StateKit
) -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def hang(run: Run) -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    record = Recorder()
    job_id = await kit.jobs.enqueue(new(3))
    async with working(kit, handler(hang, lease_s=1.5)):
        async with asyncio.timeout(20):
            await begun.wait()
        changed = {"lease_expires_at": LONG_AGO}
        await kit.mongo.collection("jobs").update_one({"_id": job_id}, {"$set": changed})
        async with asyncio.timeout(20):
            await cancelled.wait()
    async with working(other_kit, handler(record)):
        job = await until_over(kit, job_id)
    assert record.ran == [3]
    assert (job.state, job.crashes, job.errors[0].kind) == ("completed", 1, "crash")


async def test_a_commit_writes_effect_and_completion_or_neither(kit: StateKit) -> None:
    effects = kit.mongo.collection("effects")
    outcomes: list[str] = []

    async def commit(run: Run) -> None:
        async def work(session: Any) -> None:
            await effects.insert_one({"_id": run.job.id}, session=session)
            if run.job.payload["n"] == 1 and run.job.attempts == 0:
                raise ValueError("in the middle")

        if run.job.payload["n"] == 2 and run.job.crashes == 0:
            lost = {"$set": {"lease_expires_at": LONG_AGO}}
            await kit.mongo.collection("jobs").update_one({"_id": run.job.id}, lost)
        try:
            await run.commit(work, result={"done": True})
        except JobLostError:
            outcomes.append("lost")
            raise

    ids = [await kit.jobs.enqueue(new(n)) for n in range(3)]
    async with working(kit, handler(commit)):
        jobs = [await until_over(kit, job_id) for job_id in ids]
    assert [(job.state, job.attempts, job.crashes, job.result) for job in jobs] == [
        ("completed", 0, 0, {"done": True}),
        ("completed", 1, 0, {"done": True}),
        ("completed", 0, 1, {"done": True}),
    ]
    assert await effects.count_documents({}) == 3
    assert outcomes == ["lost"]


async def test_draining_finishes_what_runs_and_claims_no_more(kit: StateKit, other_kit: StateKit) -> None:
    begun = asyncio.Event()

    async def work(run: Run) -> None:
        begun.set()
        await asyncio.sleep(0.3)

    first, second = await kit.jobs.enqueue(new(1)), await kit.jobs.enqueue(new(2))
    async with working(kit, handler(work, concurrency=1)) as stop:
        async with asyncio.timeout(20):
            await begun.wait()
        stop.set()
    assert (await kit.jobs.get("", first)).state == "completed"
    assert (await kit.jobs.get("", second)).state == "pending"


@pytest.mark.settings(drain_timeout_s=1)
async def test_draining_hands_back_what_does_not_finish_and_counts_no_try(
    kit: StateKit, other_kit: StateKit
) -> None:
    begun = asyncio.Event()

    async def hang(run: Run) -> None:
        begun.set()
        await asyncio.sleep(60)

    record = Recorder()
    job_id = await kit.jobs.enqueue(new(5))
    async with working(kit, handler(hang, lease_s=30)) as stop:
        async with asyncio.timeout(20):
            await begun.wait()
        stop.set()
    handed_back = await kit.jobs.get("", job_id)
    assert (handed_back.state, handed_back.attempts, handed_back.crashes) == ("pending", 0, 0)
    async with working(other_kit, handler(record)):
        await until_over(kit, job_id)
    assert record.ran == [5]


async def test_a_job_enqueued_in_a_transaction_is_there_if_and_only_if_it_commits(kit: StateKit) -> None:
    record = Recorder()
    dropped, kept = new(1), new(2)

    async def refuse(session: Any) -> None:
        await kit.jobs.enqueue(dropped, session=session)
        raise ConflictError("not so")

    async def agree(session: Any) -> list[str]:
        return [await kit.jobs.enqueue(job, session=session) for job in (kept, kept)]

    with pytest.raises(ConflictError):
        await kit.transactions.run(refuse)
    assert await kit.transactions.run(agree) == [kept.id, kept.id]
    async with working(kit, handler(record)):
        await until_over(kit, kept.id)
    assert record.ran == [2]
    with pytest.raises(NotFoundError):
        await kit.jobs.get("", dropped.id)


async def test_jobs_of_unknown_types_wait_for_a_worker_that_knows_them(kit: StateKit) -> None:
    unknown = await kit.jobs.enqueue(NewJob("test.unknown", {}))
    async with working(kit, handler(Recorder())):
        await until_over(kit, await kit.jobs.enqueue(new()))
    assert (await kit.jobs.get("", unknown)).state == "pending"


@pytest.mark.parametrize("job_type", ["", "Upper", "a b", "a..b", "x" * 65, "cf:jobs", "a\n"])
def test_what_cannot_be_a_type_is_refused(job_type: str) -> None:
    with pytest.raises(ValueError, match="type of job"):
        NewJob(job_type, {})
