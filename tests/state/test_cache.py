"""The cache on a real Redis, through the kits of several replicas that race."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import redis.asyncio

from app.core.errors import NotFoundError, StoreUnavailableError
from app.core.settings import Settings
from app.state import keys
from app.state.cache import CacheRead
from app.state.cache_kinds import CacheEntry, everything_of
from app.state.kit import StateKit, open_kit
from tests.engines import as_environment
from tests.state.cached_things import LISTS, OWNER, QUOTES, RATES, SMALL, Source, my_list
from tests.waiting import held_by_one_task, until

COLD = 1000
AWAY = StoreUnavailableError("MongoDB")


@pytest.fixture
async def trio(settings: Settings) -> AsyncIterator[list[StateKit]]:
    """Three replicas' kits on one Redis."""
    async with AsyncExitStack() as stack:
        kits = [await stack.enter_async_context(held_by_one_task(open_kit(settings))) for _ in range(3)]
        await until(lambda: all(kit.redis.health.status == "pass" for kit in kits))
        yield kits


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[redis.asyncio.Redis]:
    async with redis.asyncio.from_url(settings.redis_url.get_secret_value()) as connected:
        yield connected


async def end_freshness(client: redis.asyncio.Redis, entry: CacheEntry) -> None:
    """Let an entry's time run out, and the pause after a failed load."""
    assert await client.hexists(entry.hash_key, "fresh_until")
    await client.hset(entry.hash_key, "fresh_until", 1)
    await client.hdel(entry.hash_key, "retry_at")


async def kept(kit: StateKit, entry: CacheEntry, source: Source) -> None:
    """Read until it is a hit: a replica that was held up may have let the generation lapse."""
    async with asyncio.timeout(20):
        while (await kit.cache.read(entry, source.load)).outcome != "hit":
            pass


def asked(kit: StateKit) -> int:
    """How often Redis was asked for an entry."""
    return sum(
        sum(row[:-1]) for labels, row in kit.metrics._commands.rows.items() if labels[1] == "cache.read"
    )


async def in_flight(source: Source) -> None:
    await until(lambda: source.loads > 0)


async def test_what_one_replica_loaded_every_replica_serves(kit: StateKit, other_kit: StateKit) -> None:
    source = Source(b'{"n":1}')
    assert await kit.cache.read(my_list(), source.load) == CacheRead(b'{"n":1}', "miss")
    assert await other_kit.cache.read(my_list(), source.load) == CacheRead(b'{"n":1}', "hit")
    assert source.loads == 1


async def test_a_thousand_who_ask_three_replicas_for_one_cold_entry_cost_one_load(
    trio: list[StateKit], client: redis.asyncio.Redis
) -> None:
    source = Source(b"cold")
    source.goes_on.clear()
    asking = [asyncio.create_task(trio[n % 3].cache.read(my_list(), source.load)) for n in range(COLD)]
    await in_flight(source)
    await asyncio.sleep(0.2)  # the load takes its time, so that all the others wait for it
    source.goes_on.set()
    reads = await asyncio.gather(*asking)
    assert {read.body for read in reads} == {b"cold"}
    assert sum(asked(kit) for kit in trio) < COLD / 10, "those who ask at once ask together"
    assert {read.outcome for read in reads} <= {"miss", "hit"}
    assert source.loads == 1


async def test_others_entries_are_others(kit: StateKit) -> None:
    mine, theirs = Source(b"mine"), Source(b"theirs")
    await kit.cache.read(my_list(), mine.load)
    for entry in (my_list(user_id="usr_x"), my_list(tenant_id="ten_x"), my_list("closed")):
        assert (await kit.cache.read(entry, theirs.load)).body == b"theirs"
    assert (await kit.cache.read(my_list(), mine.load)).body == b"mine"


async def test_times_to_live_are_spread_and_bounded(kit: StateKit, client: redis.asyncio.Redis) -> None:
    source = Source()
    entries = [RATES.entry(currency=f"C{number}") for number in range(30)]
    for entry in entries:
        await kept(kit, entry, source)
    left_s = [await client.pttl(entry.hash_key) / 1000 for entry in entries]
    assert max(left_s) <= RATES.ttl_s
    assert min(left_s) > RATES.ttl_s * 0.9 - 60
    assert max(left_s) - min(left_s) > RATES.ttl_s * 0.02


@pytest.mark.parametrize("error", [AWAY, RuntimeError("a bug"), TimeoutError()])
async def test_when_loading_fails_what_is_past_its_time_is_served_and_counted(
    kit: StateKit, client: redis.asyncio.Redis, error: Exception
) -> None:
    source = Source(b"old")
    await kept(kit, my_list(), source)
    await end_freshness(client, my_list())
    source.error, loads = error, source.loads
    for _ in range(20):
        assert await kit.cache.read(my_list(), source.load) == CacheRead(b"old", "stale")
    assert source.loads < loads + 20, "a failed load is not repeated by every reader"
    await kit.hot.beat()
    counted = (await kit.hot.stats())["cache/test_list"]
    assert counted["stale"] == 20
    assert counted["load_failed"] == source.loads - loads
    await end_freshness(client, my_list())
    source.error, source.body = None, b"new"
    assert await kit.cache.read(my_list(), source.load) == CacheRead(b"new", "miss")


async def test_stale_is_served_no_longer_than_its_kind_allows(
    kit: StateKit, client: redis.asyncio.Redis
) -> None:
    source = Source(b"old")
    await kept(kit, my_list(), source)
    await end_freshness(client, my_list())
    await client.hset(my_list().hash_key, "stale_until", 2)
    source.error = AWAY
    with pytest.raises(StoreUnavailableError):
        await kit.cache.read(my_list(), source.load)


async def test_all_who_wait_are_told_of_a_failure(kit: StateKit) -> None:
    source = Source()
    source.error = AWAY
    source.goes_on.clear()
    asking = [asyncio.create_task(kit.cache.read(my_list(), source.load)) for _ in range(50)]
    await in_flight(source)
    source.goes_on.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert all(isinstance(answer, StoreUnavailableError) for answer in answers)
    assert source.loads < 10


async def test_a_refusal_is_passed_on_and_ends_what_was_kept(
    kit: StateKit, client: redis.asyncio.Redis
) -> None:
    source = Source(b"old")
    await kept(kit, my_list(), source)
    await end_freshness(client, my_list())
    source.error = NotFoundError()
    with pytest.raises(NotFoundError):
        await kit.cache.read(my_list(), source.load)
    source.error = AWAY
    with pytest.raises(StoreUnavailableError):
        await kit.cache.read(my_list(), source.load)
    await kit.hot.beat()
    assert (await kit.hot.stats())["cache/test_list"]["load_failed"] == 1


async def test_what_is_too_large_is_served_and_not_kept(kit: StateKit) -> None:
    source = Source(b"x" * 11)
    for _ in range(2):
        assert await kit.cache.read(SMALL.entry(), source.load) == CacheRead(source.body, "miss")
    assert source.loads == 2


@pytest.mark.parametrize(
    "target",
    [
        my_list().target,
        LISTS.all(**OWNER),
        LISTS.all(tenant_id=OWNER["tenant_id"]),
        everything_of(**OWNER),
    ],
)
@pytest.mark.parametrize("way", ["changing", "invalidate"])
async def test_what_was_invalidated_is_loaded_anew_through_any_replica(
    kit: StateKit, other_kit: StateKit, target: object, way: str
) -> None:
    source = Source(b"old")
    await kept(kit, my_list(), source)
    if way == "changing":
        async with other_kit.cache.changing(target):
            source.body = b"new"
    else:
        source.body = b"new"
        await other_kit.cache.invalidate(target)
    assert await kit.cache.read(my_list(), source.load) == CacheRead(b"new", "miss")


async def test_invalidating_one_leaves_the_others(kit: StateKit) -> None:
    source = Source()
    quote = QUOTES.entry(tenant_id=OWNER["tenant_id"], lane="a")
    others = [my_list("closed"), my_list(user_id="usr_x"), my_list(tenant_id="ten_x"), quote]
    for entry in others:
        await kept(kit, entry, source)
    generation = await kit.redis.client.get(keys.GENERATION)
    await kit.cache.invalidate(my_list().target)
    await kit.cache.invalidate(LISTS.all(tenant_id=OWNER["tenant_id"], user_id="usr_y"))
    outcomes = {(await kit.cache.read(entry, source.load)).outcome for entry in others}
    assert outcomes == {"hit"} or generation != await kit.redis.client.get(keys.GENERATION)


@pytest.mark.parametrize("way", ["changing", "invalidate", "one entry"])
async def test_a_loader_that_began_before_an_invalidation_fills_nothing(
    kit: StateKit, other_kit: StateKit, way: str
) -> None:
    slow, quick = Source(b"old"), Source(b"new")
    slow.goes_on.clear()
    loading = asyncio.create_task(kit.cache.read(my_list(), slow.load))
    await in_flight(slow)
    if way == "changing":
        async with other_kit.cache.changing(LISTS.all(**OWNER)):
            pass
    elif way == "invalidate":
        await other_kit.cache.invalidate(LISTS.all(**OWNER))
    else:
        await other_kit.cache.invalidate(my_list().target)
    assert (await kit.cache.read(my_list(), quick.load)).body == b"new"
    slow.goes_on.set()
    assert (await loading).body == b"old"
    assert (await other_kit.cache.read(my_list(), quick.load)).body == b"new"


async def test_while_a_writer_is_at_work_readers_load_and_nothing_is_kept(
    kit: StateKit, other_kit: StateKit
) -> None:
    source = Source(b"old")
    await kept(kit, my_list(), source)
    async with kit.cache.changing(LISTS.all(**OWNER)):
        assert await other_kit.cache.read(my_list(), source.load) == CacheRead(b"old", "bypass")
        source.body = b"new"
    assert await other_kit.cache.read(my_list(), source.load) == CacheRead(b"new", "miss")


async def test_a_barrier_that_outlived_its_time_keeps_nobody_out_and_hides_nothing(
    kit: StateKit, other_kit: StateKit, client: redis.asyncio.Redis
) -> None:
    source = Source(b"old")
    target = LISTS.all(**OWNER)
    async with kit.cache.changing(target):
        barriers = [field for field in await client.hkeys(target.hash_key) if field.startswith(b"w:")]
        for field in barriers:
            await client.hset(target.hash_key, field, 1)
        await kept(other_kit, my_list(), source)
        source.body = b"new"
    assert (await other_kit.cache.read(my_list(), source.load)).body == b"new"


async def test_a_change_that_was_refused_takes_its_barrier_down_and_a_lost_one_leaves_it(
    kit: StateKit, other_kit: StateKit
) -> None:
    source = Source()
    target = LISTS.all(**OWNER)
    with pytest.raises(NotFoundError):
        async with kit.cache.changing(target):
            raise NotFoundError
    await kept(other_kit, my_list(), source)
    with pytest.raises(StoreUnavailableError):
        async with kit.cache.changing(target):
            raise AWAY
    assert (await other_kit.cache.read(my_list(), source.load)).outcome == "bypass"


async def test_concurrent_writes_and_reads_never_show_what_was_overwritten(
    trio: list[StateKit],
) -> None:
    source = Source(b"0")
    acknowledged = 0

    async def write(kit: StateKit, number: int) -> None:
        nonlocal acknowledged
        async with kit.cache.changing(LISTS.all(**OWNER)):
            await asyncio.sleep(0)
            source.body = b"%d" % max(number, int(source.body))
        acknowledged = max(acknowledged, number)

    async def read(kit: StateKit) -> None:
        for _ in range(40):
            at_least = acknowledged
            assert int((await kit.cache.read(my_list(), source.load)).body) >= at_least

    async def write_all(kit: StateKit, first: int) -> None:
        for number in range(first, 100, 3):
            await write(kit, number)
            await asyncio.sleep(0.002)

    async with asyncio.TaskGroup() as tasks:
        for number, kit in enumerate(trio):
            tasks.create_task(write_all(kit, number + 1))
            for _ in range(3):
                tasks.create_task(read(kit))
    assert acknowledged == 99


async def test_a_reader_who_leaves_while_loading_hands_over_to_those_who_wait(
    kit: StateKit, other_kit: StateKit
) -> None:
    leaving, staying = Source(b"never"), Source(b"there")
    leaving.goes_on.clear()
    left = asyncio.create_task(kit.cache.read(my_list(), leaving.load))
    await in_flight(leaving)
    waiting = [
        asyncio.create_task(some.cache.read(my_list(), staying.load)) for some in (kit, kit, other_kit)
    ]
    await asyncio.sleep(0.05)
    left.cancel()
    assert {read.body for read in await asyncio.gather(*waiting)} == {b"there"}
    assert left.cancelled() or isinstance(left.exception(), asyncio.CancelledError)
    assert staying.loads <= 2


async def test_a_reader_who_leaves_gives_its_lease_back(kit: StateKit, client: redis.asyncio.Redis) -> None:
    leaving = Source()
    leaving.goes_on.clear()
    left = asyncio.create_task(kit.cache.read(my_list(), leaving.load))
    await in_flight(leaving)
    assert await client.hexists(my_list().hash_key, "lease")
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left
    assert not await client.hexists(my_list().hash_key, "lease")
    assert not kit.cache._flights


async def test_the_lease_of_a_killed_loader_ends_and_the_next_loads(
    kit: StateKit, settings: Settings
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.state.cache_helper"),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **as_environment(settings), "REPLICA_NAME": "replica-helper"},
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        while (await process.stdout.readline()).strip() != b"loading":
            assert process.returncode is None
    process.send_signal(signal.SIGKILL)
    await process.wait()
    source = Source(b"alive")
    reads = await asyncio.gather(*(kit.cache.read(my_list(), source.load) for _ in range(20)))
    assert {read.body for read in reads} == {b"alive"}
    assert {read.outcome for read in reads} == {"miss"}, "nobody ran out of patience before the lease did"
    assert source.loads == 1


async def test_reads_of_all_replicas_are_added_up(kit: StateKit, other_kit: StateKit) -> None:
    source = Source()
    await kit.cache.read(my_list(), source.load)
    await kit.cache.read(my_list(), source.load)
    await other_kit.cache.read(my_list(), source.load)
    await kit.hot.beat()
    await other_kit.hot.beat()
    counted = (await other_kit.hot.stats())["cache/test_list"]
    assert sum(counted.values()) == 3
    assert counted["hit"] >= 1
    assert b"cargoflow_cache_reads_total" in kit.metrics.exposition()
