"""The cache when Redis or MongoDB freezes, dies or loses everything."""

import asyncio

import pytest
import redis.asyncio

from app.core.errors import StoreUnavailableError
from app.state import keys
from app.state.cache import CacheRead
from app.state.kit import StateKit
from tests.engines import MongoEngine, RedisEngine
from tests.state.cached_things import LISTS, OWNER, Source, my_list
from tests.waiting import until


async def reachable(*kits: StateKit) -> None:
    """Wait until all of them have reached Redis again and a generation runs."""
    for kit in kits:
        await until(lambda kit=kit: not kit.redis._breaker.is_open and kit.redis.health.status == "pass")
    async with asyncio.timeout(20):
        while await kits[0].redis.client.get(keys.GENERATION) is None:  # noqa: ASYNC110  # it lives in Redis
            await asyncio.sleep(0.02)


async def kept(kit: StateKit, source: Source) -> None:
    async with asyncio.timeout(20):
        while (await kit.cache.read(my_list(), source.load)).outcome != "hit":
            pass


async def test_without_redis_reads_load_for_themselves_two_loads_a_process(
    kit: StateKit, redis_engine: RedisEngine
) -> None:
    redis_engine.kill()
    await until(lambda: kit.redis._breaker.is_open)
    source = Source(b"direct")
    source.goes_on.clear()
    asking = [asyncio.create_task(kit.cache.read(my_list(), source.load)) for _ in range(300)]
    await until(lambda: source.loads > 0)
    await asyncio.sleep(0.05)
    source.goes_on.set()
    reads = await asyncio.gather(*asking)
    assert set(reads) == {CacheRead(b"direct", "bypass")}
    assert source.loads <= 2
    redis_engine.start()
    await reachable(kit)
    await kept(kit, source)
    assert not kit.cache._direct._gates
    assert not kit.cache._asking._gates
    assert not kit.cache._flights


async def test_a_reader_without_redis_is_not_given_what_was_loaded_before_it_asked(
    kit: StateKit, redis_engine: RedisEngine
) -> None:
    redis_engine.kill()
    await until(lambda: kit.redis._breaker.is_open)
    source = Source(b"old")
    source.goes_on.clear()
    early = asyncio.create_task(kit.cache.read(my_list(), source.load))
    await until(lambda: source.loads == 1)
    source.body = b"new"
    late = asyncio.create_task(kit.cache.read(my_list(), source.load))
    await asyncio.sleep(0.05)
    source.goes_on.set()
    assert (await early).body == b"old"
    assert (await late).body == b"new"


async def test_a_frozen_redis_costs_a_wait_and_no_wrong_answer(
    kit: StateKit, redis_engine: RedisEngine
) -> None:
    source = Source(b"old")
    await kept(kit, source)
    redis_engine.freeze()
    source.body = b"new"
    read = await kit.cache.read(my_list(), source.load)
    assert read == CacheRead(b"new", "bypass")
    redis_engine.thaw()
    await reachable(kit)


async def test_a_write_while_redis_was_frozen_ends_what_was_cached_before(
    kit: StateKit, other_kit: StateKit, redis_engine: RedisEngine
) -> None:
    source = Source(b"old")
    await kept(kit, source)
    redis_engine.freeze()
    async with asyncio.timeout(20), other_kit.cache.changing(LISTS.all(**OWNER)):
        source.body = b"new"
    redis_engine.thaw()
    for some in (kit, other_kit):
        assert (await some.cache.read(my_list(), source.load)).body == b"new"
    await reachable(kit, other_kit)
    for some in (kit, other_kit):
        assert (await some.cache.read(my_list(), source.load)).body == b"new"


async def test_a_write_while_redis_was_being_restarted_ends_what_was_cached_before(
    kit: StateKit, other_kit: StateKit, redis_engine: RedisEngine
) -> None:
    source = Source(b"old")
    await kept(kit, source)
    redis_engine.kill()
    async with asyncio.timeout(20), other_kit.cache.changing(LISTS.all(**OWNER)):
        source.body = b"new"
    redis_engine.start()
    await reachable(kit, other_kit)
    await until(lambda: other_kit.hot._generations_owed == 0)
    for some in (kit, other_kit):
        assert (await some.cache.read(my_list(), source.load)).body == b"new"


async def test_a_loader_that_was_stuck_in_a_frozen_redis_fills_nothing_when_it_thaws(
    kit: StateKit, other_kit: StateKit, redis_engine: RedisEngine
) -> None:
    slow = Source(b"old")
    slow.goes_on.clear()
    loading = asyncio.create_task(kit.cache.read(my_list(), slow.load))
    await until(lambda: slow.loads > 0)
    redis_engine.freeze()
    slow.goes_on.set()
    assert (await loading).body == b"old"
    new = Source(b"new")
    async with asyncio.timeout(20), other_kit.cache.changing(LISTS.all(**OWNER)):
        pass
    redis_engine.thaw()
    await reachable(kit, other_kit)
    assert (await other_kit.cache.read(my_list(), new.load)).body == b"new"


async def test_a_wiped_redis_is_an_empty_cache_also_under_a_loader_and_a_writer(
    kit: StateKit, other_kit: StateKit
) -> None:
    source = Source(b"old")
    await kept(kit, source)
    async with redis.asyncio.from_url(kit.settings.redis_url.get_secret_value()) as client:
        slow = Source(b"old")
        await client.flushall()
        await reachable(kit, other_kit)
        slow.goes_on.clear()
        loading = asyncio.create_task(kit.cache.read(my_list("slow"), slow.load))
        await until(lambda: slow.loads > 0)
        async with other_kit.cache.changing(LISTS.all(**OWNER)):
            await client.flushall()
            await reachable(kit, other_kit)
            source.body = b"new"
        slow.goes_on.set()
        await loading
        slow.body = b"new"
        assert (await kit.cache.read(my_list(), source.load)).body == b"new"
        assert (await other_kit.cache.read(my_list("slow"), slow.load)).body == b"new"


async def test_with_mongodb_gone_what_is_past_its_time_is_served_stale(
    kit: StateKit, other_kit: StateKit, mongo_engine: MongoEngine
) -> None:
    tenant = await kit.tenants.create(name="Nordwind")

    async def load() -> bytes:
        return (await other_kit.tenants.get(tenant.id)).name.encode()

    async with asyncio.timeout(20):
        while (await other_kit.cache.read(my_list(), load)).outcome != "hit":
            pass
    await kit.redis.client.hset(my_list().hash_key, "fresh_until", 1)
    mongo_engine.freeze()
    async with asyncio.timeout(20):
        reads = await asyncio.gather(*(other_kit.cache.read(my_list(), load) for _ in range(20)))
    assert set(reads) == {CacheRead(b"Nordwind", "stale")}
    await kit.cache.invalidate(LISTS.all(**OWNER))
    with pytest.raises(StoreUnavailableError):  # what was invalidated is not served, not even stale
        await kit.cache.read(my_list(), load)
