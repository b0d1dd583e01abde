"""The schedule: which ticks there are, and one job for each."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from app.core.errors import StoreUnavailableError
from app.core.moments import timestamp
from app.state.job_run import Handler, Run
from app.state.kit import StateKit
from app.state.schedule import COLLECTION, Schedule, Scheduled
from tests.engines import MongoEngine
from tests.state.working import working
from tests.waiting import until

T = "test.beat"
NIGHTLY = Scheduled("nightly", 86_400, T, offset_s=3 * 3600)


class StoppedClock:
    """Time that moves when a test says so."""

    def __init__(self, now: datetime) -> None:
        self.time = now

    def now(self) -> datetime:
        return self.time

    def monotonic_s(self) -> float:
        return self.time.timestamp()


def schedule(kit: StateKit, clock: StoppedClock, *table: Scheduled) -> Schedule:
    return Schedule(mongo=kit.mongo, jobs=kit.jobs, clock=clock, table=table)


async def ticks(kit: StateKit) -> list[datetime]:
    rows = await kit.mongo.collection(COLLECTION).find({}).to_list(None)
    return sorted(row["due_at"] for row in rows)


async def jobs(kit: StateKit) -> list[str]:
    rows = await kit.mongo.collection("jobs").find({}).to_list(None)
    return sorted(row["payload"]["tick"] for row in rows)


def test_ticks_are_whole_periods_and_an_offset_since_1970() -> None:
    noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert NIGHTLY.due_at(NIGHTLY.tick_at(noon)) == datetime(2026, 1, 31, 3, tzinfo=UTC)
    early = datetime(2026, 1, 31, 2, 59, 59, tzinfo=UTC)
    assert NIGHTLY.due_at(NIGHTLY.tick_at(early)) == datetime(2026, 1, 30, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    "fields", [{"every_s": 0}, {"every_s": 5, "offset_s": 5}, {"every_s": 5, "catch_up": -1}]
)
def test_a_schedule_that_cannot_be_is_refused(fields: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="can't be"):
        Scheduled("x", job_type=T, **fields)


async def test_of_many_schedulers_one_enqueues_a_tick(kit: StateKit, other_kit: StateKit) -> None:
    clock = StoppedClock(datetime(2026, 1, 31, 12, tzinfo=UTC))
    line = Scheduled("beat", 10, T, overlap=True, catch_up=0)
    schedulers = [schedule(each, clock, line) for each in (kit, other_kit) for _ in range(3)]
    for _ in range(4):
        await asyncio.gather(*(each.tick() for each in schedulers))
        clock.time += timedelta(seconds=10)
    assert await jobs(kit) == [f"2026-01-31T12:00:{n}0.000Z" for n in range(4)]


async def test_missed_ticks_are_made_up_for_as_far_back_as_allowed(kit: StateKit) -> None:
    clock = StoppedClock(datetime(2026, 1, 31, 12, tzinfo=UTC))
    line = Scheduled("beat", 60, T, overlap=True, catch_up=2)
    await schedule(kit, clock, line).tick()
    clock.time += timedelta(minutes=10)
    await schedule(kit, clock, line).tick()
    assert [each.minute for each in await ticks(kit)] == [58, 59, 0, 8, 9, 10]


async def test_a_tick_adds_no_job_while_the_one_before_is_unfinished(kit: StateKit) -> None:
    clock = StoppedClock(datetime(2026, 1, 31, 12, tzinfo=UTC))
    scheduler = schedule(kit, clock, Scheduled("beat", 60, T, catch_up=0))
    for _ in range(3):
        await scheduler.tick()
        clock.time += timedelta(minutes=1)
    assert len(await ticks(kit)) == 3
    assert await jobs(kit) == ["2026-01-31T12:00:00.000Z"]


async def test_a_tick_whose_scheduler_died_before_enqueuing_is_enqueued_by_a_worker(kit: StateKit) -> None:
    ran: list[str] = []

    async def note(run: Run) -> None:
        ran.append(run.job.payload["tick"])

    line = Scheduled("beat", 3600, T, catch_up=0)
    dying = Schedule(mongo=kit.mongo, jobs=kit.jobs, clock=kit.clock, table=[line])

    async def die(*_: object) -> None:
        raise StoreUnavailableError("MongoDB")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kit.jobs, "relay", die)
        await dying.tick()
    assert await jobs(kit) == []
    async with working(kit, Handler(T, note), outboxes=(COLLECTION,)):
        await until(lambda: len(ran) == 1)


async def test_the_schedule_makes_up_for_the_time_in_which_mongodb_was_gone(
    kit: StateKit, mongo_engine: MongoEngine
) -> None:
    async def nothing(run: Run) -> None:
        return

    line = Scheduled("beat", 1, T, overlap=True, catch_up=30)
    async with working(kit, Handler(T, nothing), outboxes=(COLLECTION,), table=[line]):
        async with asyncio.timeout(20):
            while len(await jobs(kit)) < 31:  # noqa: ASYNC110  # a store
                await asyncio.sleep(0.05)
        mongo_engine.freeze()
        await asyncio.sleep(3)
        mongo_engine.thaw()
        back_at = kit.clock.now() + timedelta(seconds=1)
        async with asyncio.timeout(30):
            await until(lambda: kit.mongo.health.status == "pass")
            while (await ticks(kit))[-1] < back_at or await waiting(kit):  # noqa: ASYNC110  # a store
                await asyncio.sleep(0.05)
    moments = await ticks(kit)
    assert moments == [moments[0] + timedelta(seconds=n) for n in range(len(moments))]
    assert await jobs(kit) == [timestamp(moment) for moment in moments]


async def waiting(kit: StateKit) -> bool:
    """Say whether an outbox is not empty."""
    return await kit.mongo.collection(COLLECTION).count_documents({"outbox": {"$ne": []}}) > 0
