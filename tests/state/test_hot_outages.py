"""Hot copies when Redis freezes, dies or loses everything under replicas that go on working."""

import asyncio

import pytest
import redis.asyncio

from app.state import keys
from app.state.hot import HotCopy, HotRead
from app.state.kit import StateKit
from tests.engines import RedisEngine
from tests.waiting import until

NAME = "session:ten_a:usr_b:ses_c"
OLD = HotCopy(b"old", b'{"v":1}')
NEW = HotCopy(b"new", b'{"v":2}')


async def filled(kit: StateKit, copy: HotCopy) -> None:
    found = await leased(kit)
    await kit.hot.fill(NAME, found.lease, copy)
    assert (await kit.hot.read(NAME)).head == copy.head


async def leased(kit: StateKit) -> HotRead:
    """Read until the read is a miss with a lease."""
    async with asyncio.timeout(20):
        while not (found := await kit.hot.read(NAME)).lease:
            assert found.head != OLD.head
            await asyncio.sleep(0.01)
    return found


async def reachable(*kits: StateKit) -> None:
    """Wait until all of them have reached Redis again and a generation runs."""
    for kit in kits:
        await until(lambda kit=kit: not kit.redis._breaker.is_open and kit.redis.health.status == "pass")
    async with (
        asyncio.timeout(20),
        redis.asyncio.from_url(kits[0].settings.redis_url.get_secret_value()) as client,
    ):
        while await client.get(keys.GENERATION) is None:  # noqa: ASYNC110  # it lives in Redis
            await asyncio.sleep(0.02)


async def write_while_redis_is_away(kit: StateKit) -> None:
    """Commit something nobody in Redis hears of."""
    async with asyncio.timeout(10), kit.hot.writing(NAME) as write:
        assert write.before.state == "miss"
        write.fill(NEW)


async def test_a_copy_from_before_a_freeze_in_which_a_write_went_by_is_not_believed(
    kit: StateKit, other_kit: StateKit, redis_engine: RedisEngine
) -> None:
    await filled(kit, OLD)
    redis_engine.freeze()
    await write_while_redis_is_away(other_kit)
    redis_engine.thaw()
    await reachable(kit, other_kit)
    for _ in range(50):
        for replica in (kit, other_kit):
            assert (await replica.hot.read(NAME)).head != OLD.head


async def test_a_fill_that_was_stuck_in_a_frozen_redis_fills_nothing_when_it_thaws(
    kit: StateKit, other_kit: StateKit, redis_engine: RedisEngine
) -> None:
    slow = await leased(kit)
    redis_engine.freeze()
    async with asyncio.TaskGroup() as group:
        group.create_task(kit.hot.fill(NAME, slow.lease, OLD))
        group.create_task(write_while_redis_is_away(other_kit))
    redis_engine.thaw()
    await reachable(kit, other_kit)
    for _ in range(50):
        assert (await other_kit.hot.read(NAME)).head != OLD.head


async def test_a_writer_whose_settling_was_stuck_in_a_frozen_redis_fills_nothing_when_it_thaws(
    kit: StateKit, other_kit: StateKit, redis_engine: RedisEngine
) -> None:
    async with kit.hot.writing(NAME) as write:
        write.fill(OLD)
        redis_engine.freeze()
    await write_while_redis_is_away(other_kit)
    redis_engine.thaw()
    await reachable(kit, other_kit)
    for _ in range(50):
        assert (await other_kit.hot.read(NAME)).head != OLD.head


async def test_a_replica_that_alone_could_not_raise_its_barrier_starts_a_new_generation(
    kit: StateKit, other_kit: StateKit
) -> None:
    await filled(kit, OLD)
    for _ in range(3):
        other_kit.redis._breaker.failed(ConnectionError("cut off"))
    assert other_kit.redis._breaker.is_open
    await write_while_redis_is_away(other_kit)
    await until(lambda: other_kit.hot._generations_owed == 0)
    assert (await kit.hot.read(NAME)).head != OLD.head


async def test_a_replica_whose_write_failed_without_a_barrier_starts_a_new_generation_too(
    kit: StateKit, other_kit: StateKit
) -> None:
    await filled(kit, OLD)
    for _ in range(3):
        other_kit.redis._breaker.failed(ConnectionError("cut off"))
    with pytest.raises(TimeoutError):
        async with other_kit.hot.writing(NAME):
            raise TimeoutError
    await until(lambda: other_kit.hot._generations_owed == 0)
    assert (await kit.hot.read(NAME)).head != OLD.head


async def test_reads_miss_and_writes_go_on_while_redis_is_dead(
    kit: StateKit, redis_engine: RedisEngine
) -> None:
    await filled(kit, OLD)
    redis_engine.kill()
    found = await kit.hot.read(NAME)
    assert (found.state, found.lease) == ("miss", "")
    await write_while_redis_is_away(kit)
    await until(lambda: kit.redis.health.status == "fail")
    await asyncio.to_thread(redis_engine.start)
    await reachable(kit)
    assert (await kit.hot.read(NAME)).head != OLD.head


async def test_flushing_redis_costs_copies_and_nothing_else(kit: StateKit, other_kit: StateKit) -> None:
    await filled(kit, OLD)
    await kit.redis.client.flushall()
    await reachable(kit, other_kit)
    await filled(other_kit, NEW)
    assert (await kit.hot.read(NAME)).head == NEW.head
