"""Hot copies, step by step: every race is played by hand, on a real Redis, and only the test beats."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import redis.asyncio

from app.core.clock import SystemClock
from app.core.errors import NotFoundError, StoreUnavailableError
from app.core.metrics import Metrics
from app.core.settings import Settings
from app.state import keys
from app.state.hot import HotCopies, HotCopy
from app.state.redis import RedisStore
from tests.engines import RedisEngine

NAME = "session:ten_a:usr_b:ses_c"
OLD = HotCopy(b"old", b'{"v":1}')
NEW = HotCopy(b"new", b'{"v":2}')


async def open_hot(settings: Settings, stack: AsyncExitStack) -> HotCopies:
    metrics = Metrics()
    store = RedisStore(settings, SystemClock(), metrics)
    stack.push_async_callback(store.close)
    return HotCopies(store, metrics)


@pytest.fixture
async def pair(settings: Settings) -> AsyncIterator[tuple[HotCopies, HotCopies]]:
    """Two replicas' hot copies; the first has beaten once and nobody will again unless told to."""
    async with AsyncExitStack() as stack:
        a, b = await open_hot(settings, stack), await open_hot(settings, stack)
        await a.beat()
        await persist_generation(settings)
        yield a, b


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[redis.asyncio.Redis]:
    async with redis.asyncio.from_url(settings.redis_url.get_secret_value()) as connected:
        yield connected


async def persist_generation(settings: Settings) -> None:
    """Let the generation live until it is replaced, so that a slow machine can't end it in mid-test."""
    async with redis.asyncio.from_url(settings.redis_url.get_secret_value()) as connected:
        assert await connected.persist(keys.GENERATION)


async def filled(hot: HotCopies, copy: HotCopy) -> None:
    found = await hot.read(NAME)
    assert found.lease
    await hot.fill(NAME, found.lease, copy)
    assert (await hot.read(NAME)).head == copy.head


async def new_generation(hot: HotCopies) -> None:
    hot._generations_owed += 1
    await hot.beat()


async def test_what_a_reader_filled_every_replica_reads(pair: tuple[HotCopies, HotCopies]) -> None:
    a, b = pair
    await filled(a, OLD)
    found = await b.read(NAME)
    assert (found.state, found.head, found.body, found.touch) == ("hit", OLD.head, OLD.body, False)


async def test_only_one_of_many_readers_that_miss_gets_the_lease(pair: tuple[HotCopies, HotCopies]) -> None:
    a, b = pair
    found = await asyncio.gather(*(hot.read(NAME) for hot in (a, b) * 20))
    assert sum(bool(read.lease) for read in found) == 1


async def test_a_reader_cannot_fill_after_a_writer_was_there(pair: tuple[HotCopies, HotCopies]) -> None:
    a, b = pair
    slow = await a.read(NAME)
    async with b.writing(NAME):
        pass
    await a.fill(NAME, slow.lease, OLD)
    assert (await b.read(NAME)).state == "miss"


async def test_a_reader_cannot_fill_over_what_a_writer_filled(pair: tuple[HotCopies, HotCopies]) -> None:
    a, b = pair
    slow = await a.read(NAME)
    async with b.writing(NAME) as write:
        write.fill(NEW)
    await a.fill(NAME, slow.lease, OLD)
    await a.bury(NAME, slow.lease)
    assert (await a.read(NAME)).head == NEW.head


async def test_a_reader_who_held_the_lease_before_a_writer_came_neither_fills_nor_ends_the_barrier(
    pair: tuple[HotCopies, HotCopies],
) -> None:
    a, b = pair
    slow = await a.read(NAME)
    async with b.writing(NAME):
        await a.fill(NAME, slow.lease, OLD)
        under_way = await a.read(NAME)
        assert (under_way.state, under_way.lease) == ("miss", "")


async def test_nobody_gets_a_lease_nor_a_hit_while_a_writer_is_under_way(
    pair: tuple[HotCopies, HotCopies],
) -> None:
    a, b = pair
    await filled(a, OLD)
    async with b.writing(NAME) as write:
        assert write.before.head == OLD.head
        under_way = await a.read(NAME)
        assert (under_way.state, under_way.lease) == ("miss", "")
        write.fill(NEW)
    assert (await a.read(NAME)).head == NEW.head


async def test_of_two_writers_at_once_nobody_fills_and_the_next_reader_does(
    pair: tuple[HotCopies, HotCopies],
) -> None:
    a, b = pair
    async with a.writing(NAME) as first:
        async with b.writing(NAME) as second:
            second.fill(NEW)
        first.fill(OLD)
    found = await a.read(NAME)
    assert (found.state, bool(found.lease)) == ("miss", True)
    await a.fill(NAME, found.lease, NEW)
    assert (await b.read(NAME)).head == NEW.head


async def test_two_writers_that_overlap_like_links_of_a_chain_fill_nothing_either(
    pair: tuple[HotCopies, HotCopies],
) -> None:
    a, b = pair
    first, second = a.writing(NAME), b.writing(NAME)
    (await first.__aenter__()).fill(OLD)
    (await second.__aenter__()).fill(NEW)
    await first.__aexit__(None, None, None)
    assert (await a.read(NAME)).state == "miss"
    await second.__aexit__(None, None, None)
    assert (await a.read(NAME)).state == "miss"


async def test_after_contenders_have_left_a_lone_writer_fills_again(
    pair: tuple[HotCopies, HotCopies],
) -> None:
    a, b = pair
    async with a.writing(NAME), b.writing(NAME):
        pass
    async with a.writing(NAME) as write:
        write.fill(NEW)
    assert (await b.read(NAME)).head == NEW.head


async def test_a_writer_that_buries_while_another_writes_leaves_no_tombstone(
    pair: tuple[HotCopies, HotCopies],
) -> None:
    """A deactivated user who is activated again at the same moment is not gone."""
    a, b = pair
    async with a.writing(NAME) as first:
        async with b.writing(NAME) as second:
            second.fill(NEW)
        first.bury()
    assert (await a.read(NAME)).state == "miss"


async def test_a_deletion_leaves_a_tombstone_that_no_reader_replaces(
    pair: tuple[HotCopies, HotCopies],
) -> None:
    a, b = pair
    slow = await a.read(NAME)
    async with b.writing(NAME) as write:
        write.bury()
    await a.fill(NAME, slow.lease, OLD)
    found = await a.read(NAME)
    assert (found.state, found.lease) == ("gone", "")
    async with a.writing(NAME) as later:
        assert later.before.state == "gone"


async def test_a_writer_killed_before_it_settled_leaves_a_barrier_that_ends(
    pair: tuple[HotCopies, HotCopies], client: redis.asyncio.Redis
) -> None:
    a, b = pair
    await filled(a, OLD)
    await b.writing(NAME).__aenter__()  # and never leaves: what a killed process does
    for hot in (a, b):
        found = await hot.read(NAME)
        assert (found.state, found.lease) == ("miss", "")
    assert 0 < await client.pttl(keys.hot_guard(NAME)) <= keys.HOT_WRITER_TTL_MS
    await expire_barriers(client)
    await filled(a, NEW)


async def test_a_writer_that_wakes_after_its_barrier_ended_drops_what_was_filled_meanwhile(
    pair: tuple[HotCopies, HotCopies], client: redis.asyncio.Redis
) -> None:
    a, b = pair
    async with b.writing(NAME) as paused:
        await expire_barriers(client)
        await filled(a, OLD)
        paused.fill(NEW)
    found = await a.read(NAME)
    assert (found.state, bool(found.lease)) == ("miss", True)


async def test_a_writer_that_woke_late_takes_the_leases_of_readers_away(
    pair: tuple[HotCopies, HotCopies], client: redis.asyncio.Redis
) -> None:
    a, b = pair
    async with b.writing(NAME):
        await expire_barriers(client)
        slow = await a.read(NAME)
        assert slow.lease
    await a.fill(NAME, slow.lease, OLD)
    assert (await a.read(NAME)).state == "miss"


async def test_a_writer_does_not_fill_if_one_without_a_barrier_settled_meanwhile(
    pair: tuple[HotCopies, HotCopies], client: redis.asyncio.Redis
) -> None:
    a, b = pair
    late = b.writing(NAME)
    await late.__aenter__()
    await expire_barriers(client)
    async with a.writing(NAME) as alone:
        await late.__aexit__(None, None, None)  # has committed after `a` did, and lost its barrier long ago
        alone.fill(OLD)
    assert (await a.read(NAME)).state == "miss"


async def test_a_refusal_takes_the_barrier_down_and_an_unknown_outcome_leaves_it(
    pair: tuple[HotCopies, HotCopies],
) -> None:
    a, b = pair
    with pytest.raises(NotFoundError):
        async with a.writing(NAME):
            raise NotFoundError
    await filled(b, OLD)
    with pytest.raises(StoreUnavailableError):
        async with a.writing(NAME):
            raise StoreUnavailableError("MongoDB")
    found = await b.read(NAME)
    assert (found.state, found.lease) == ("miss", "")


async def test_a_cancelled_write_leaves_its_barrier(pair: tuple[HotCopies, HotCopies]) -> None:
    a, b = pair
    entered = asyncio.Event()

    async def write_for_ever() -> None:
        async with a.writing(NAME):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(write_for_ever())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    found = await b.read(NAME)
    assert (found.state, found.lease) == ("miss", "")


async def test_no_copy_of_an_earlier_generation_is_believed(pair: tuple[HotCopies, HotCopies]) -> None:
    a, b = pair
    await filled(a, OLD)
    await new_generation(b)
    found = await a.read(NAME)
    assert (found.state, bool(found.lease)) == ("miss", True)
    async with a.writing(NAME) as write:
        assert write.before.state == "miss"


async def test_a_lease_of_an_earlier_generation_fills_nothing_and_blocks_nobody(
    pair: tuple[HotCopies, HotCopies],
) -> None:
    a, b = pair
    slow = await a.read(NAME)
    await new_generation(b)
    await a.fill(NAME, slow.lease, OLD)
    await filled(b, NEW)
    await a.fill(NAME, slow.lease, OLD)
    assert (await a.read(NAME)).head == NEW.head


async def test_a_writer_of_an_earlier_generation_fills_nothing(pair: tuple[HotCopies, HotCopies]) -> None:
    a, b = pair
    async with a.writing(NAME) as write:
        write.fill(OLD)
        await new_generation(b)
    assert (await a.read(NAME)).state == "miss"


async def test_without_a_generation_nothing_is_believed_leased_or_filled(
    pair: tuple[HotCopies, HotCopies], client: redis.asyncio.Redis
) -> None:
    a, _ = pair
    await filled(a, OLD)
    await client.delete(keys.GENERATION)
    found = await a.read(NAME)
    assert (found.state, found.lease) == ("miss", "")
    async with a.writing(NAME) as write:
        assert write.before.state == "miss"
        write.fill(NEW)
    await a.beat()
    assert (await a.read(NAME)).state == "miss"


async def test_the_generation_ends_when_nobody_beats_and_lives_on_while_somebody_does(
    settings: Settings, client: redis.asyncio.Redis
) -> None:
    async with AsyncExitStack() as stack:
        a = await open_hot(settings, stack)
        await a.beat()
        first = await client.get(keys.GENERATION)
        await a.beat()
        assert await client.get(keys.GENERATION) in {first, None}
        assert 0 < await client.pttl(keys.GENERATION) <= keys.GENERATION_LEASE_MS
        assert settings.redis_timeout_s * 1000 > keys.GENERATION_LEASE_MS
        async with asyncio.timeout(20):
            while await client.get(keys.GENERATION) is not None:  # noqa: ASYNC110  # it lives in Redis
                await asyncio.sleep(0.05)
        await a.beat()
        assert await client.get(keys.GENERATION) not in {first, None}


async def test_a_debt_made_while_a_beat_is_under_way_is_paid_by_the_next(
    pair: tuple[HotCopies, HotCopies], client: redis.asyncio.Redis
) -> None:
    a, _ = pair
    a._generations_owed += 1
    beat = asyncio.create_task(a.beat())
    await asyncio.sleep(0)
    a._generations_owed += 1
    await beat
    between = await client.get(keys.GENERATION)
    await a.beat()
    assert await client.get(keys.GENERATION) != between
    settled = await client.get(keys.GENERATION)
    await a.beat()
    assert await client.get(keys.GENERATION) == settled


async def test_a_restarted_redis_is_not_believed_however_quickly_it_came_back(
    pair: tuple[HotCopies, HotCopies], client: redis.asyncio.Redis, redis_engine: RedisEngine
) -> None:
    a, b = pair
    await filled(a, OLD)
    before = await client.get(keys.GENERATION)
    await client.config_set("appendfsync", "always")
    await client.set("cf:test:on-disk", 1)
    await asyncio.to_thread(redis_engine.restart)
    await client.connection_pool.disconnect()
    assert await client.get(keys.GENERATION) == before
    assert await client.exists(keys.hot_copy(NAME)) == 1
    async with asyncio.timeout(20):
        while await client.get(keys.GENERATION) == before:
            await b.beat()
        while not (found := await a.read(NAME)).lease:
            assert found.state == "miss"


async def test_flushing_redis_under_a_writer_and_a_reader_leaves_nothing_stale(
    pair: tuple[HotCopies, HotCopies], client: redis.asyncio.Redis
) -> None:
    a, b = pair
    slow = await a.read(NAME)
    async with b.writing(NAME) as write:
        await client.flushall()
        await a.beat()
        early = await a.read(NAME)
        assert early.lease, "the barrier is gone with everything else"
        write.fill(NEW)
    for lease in (slow.lease, early.lease):
        await a.fill(NAME, lease, OLD)
    assert (await a.read(NAME)).state == "miss"


async def test_a_swap_replaces_the_copy_that_was_seen_and_no_other(
    pair: tuple[HotCopies, HotCopies],
) -> None:
    a, b = pair
    await filled(a, OLD)
    seen = await a.read(NAME)
    extended = HotCopy(b"extended", OLD.body)
    await a.swap(NAME, seen, extended)
    assert (await b.read(NAME)).head == extended.head
    await a.swap(NAME, seen, OLD)
    assert (await b.read(NAME)).head == extended.head


async def test_a_swap_brings_nothing_back_after_a_writer_or_a_new_generation(
    pair: tuple[HotCopies, HotCopies],
) -> None:
    a, b = pair
    await filled(a, OLD)
    seen = await a.read(NAME)
    async with b.writing(NAME):
        await a.swap(NAME, seen, NEW)
        assert (await a.read(NAME)).state == "miss"
    await a.swap(NAME, seen, NEW)
    await filled(b, OLD)
    await new_generation(b)
    await a.swap(NAME, seen, NEW)
    assert (await a.read(NAME)).state == "miss"
    found = await a.read(NAME)
    await a.bury(NAME, found.lease)


async def test_one_reader_is_told_to_touch_and_only_if_it_would(
    pair: tuple[HotCopies, HotCopies], client: redis.asyncio.Redis
) -> None:
    a, b = pair
    await filled(a, HotCopy(b"due", touch_in_ms=60_000))
    assert not (await a.read(NAME)).touch
    await client.hset(keys.hot_copy(NAME), "due", 1)
    assert not (await a.read(NAME, claim=False)).touch
    found = await asyncio.gather(*(hot.read(NAME) for hot in (a, b) * 10))
    assert sum(read.touch for read in found) == 1
    await client.hset(keys.hot_copy(NAME), "due", 1)
    assert (await b.read(NAME)).touch


async def test_a_copy_lives_no_longer_than_its_document_nor_than_a_minute(
    pair: tuple[HotCopies, HotCopies], client: redis.asyncio.Redis
) -> None:
    a, _ = pair
    await filled(a, HotCopy(b"long", life_ms=10**9))
    assert 0 < await client.pttl(keys.hot_copy(NAME)) <= keys.HOT_COPY_TTL_MS
    async with a.writing(NAME) as write:
        write.fill(HotCopy(b"short", life_ms=5_000))
    assert 0 < await client.pttl(keys.hot_copy(NAME)) <= 5_000
    async with a.writing(NAME) as write:
        write.fill(HotCopy(b"over", life_ms=-5_000))
    assert await client.pttl(keys.hot_copy(NAME)) <= 1


async def test_names_of_other_owners_are_other_copies(pair: tuple[HotCopies, HotCopies]) -> None:
    a, _ = pair
    await filled(a, OLD)
    name = keys.owned_name("session", "ten_other", "usr_b", "ses_c")
    assert (await a.read(name)).state == "miss"


async def test_reads_of_all_replicas_are_added_up(pair: tuple[HotCopies, HotCopies]) -> None:
    a, b = pair
    await filled(a, OLD)
    await b.read(NAME)
    await a.beat()
    await b.beat()
    assert (await a.stats())["session"] == {"miss": 1, "hit": 2}


async def expire_barriers(client: redis.asyncio.Redis) -> None:
    """Let the time of every barrier run out."""
    guard = keys.hot_guard(NAME)
    barriers = [field for field in await client.hkeys(guard) if field.startswith(b"w:")]
    assert barriers
    for field in barriers:
        await client.hset(guard, field, 1)
