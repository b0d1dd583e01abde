"""Event streams when Redis freezes, dies, restarts or loses everything."""

import asyncio

import pytest

from app.core.errors import StoreUnavailableError
from app.state.channels import START
from app.state.kit import StateKit
from app.state.listener import SILENCE_MAX_S
from app.state.subscriptions import SubscriptionEndedError
from tests.cluster.counts import full
from tests.engines import RedisEngine
from tests.state.streams import CHANNEL, RUN, followed, gather_some, hear, hear_through, numbered, say, tell
from tests.waiting import until


async def reachable(*kits: StateKit) -> None:
    for kit in kits:
        await until(lambda kit=kit: not kit.redis._breaker.is_open and kit.redis.health.status == "pass")


async def test_without_redis_appending_and_subscribing_fail_and_consumers_are_told(
    kit: StateKit, redis_engine: RedisEngine
) -> None:
    async with kit.realtime.subscribe(CHANNEL) as events:
        waiting = asyncio.create_task(events.next())
        await asyncio.sleep(0)
        redis_engine.kill()
        with pytest.raises(StoreUnavailableError):
            async with asyncio.timeout(20):
                await waiting
        with pytest.raises(StoreUnavailableError):
            await say(kit, "x")
        with pytest.raises(StoreUnavailableError):
            async with kit.realtime.subscribe(CHANNEL):
                pass
        with pytest.raises(StoreUnavailableError):
            async with kit.realtime.subscribe(RUN.of("ten_a", "another")):
                pass
        assert events.end is None


async def test_after_a_restart_consumers_go_on_without_a_gap(
    kit: StateKit, other_kit: StateKit, redis_engine: RedisEngine
) -> None:
    await kit.redis.client.config_set("appendfsync", "always")
    async with kit.realtime.subscribe(CHANNEL) as events:
        await say(kit, *numbered(5))
        assert await hear(events, 3) == numbered(3)
        await asyncio.to_thread(redis_engine.restart)
        await reachable(other_kit)
        await say(other_kit, *numbered(5, 5))
        assert await hear_through(events, 7) == numbered(7, 3)
    async with other_kit.realtime.subscribe(CHANNEL, events.position) as resumed:
        assert resumed.recovered


async def test_after_a_freeze_longer_than_the_listeners_patience_nothing_is_missing(
    kit: StateKit, other_kit: StateKit, redis_engine: RedisEngine
) -> None:
    async with kit.realtime.subscribe(CHANNEL) as events:
        await say(kit, "0")
        assert await hear(events, 1) == ["0"]
        redis_engine.freeze()
        hearing = asyncio.create_task(hear_through(events, 3))
        await until(lambda: not kit.realtime._listener._sent, timeout_s=SILENCE_MAX_S * 5)
        redis_engine.thaw()
        await reachable(other_kit, kit)
        await say(other_kit, "1", "2", "3")
        assert await hearing == ["1", "2", "3"]


async def test_thousands_who_were_cut_off_at_once_all_go_on(kit: StateKit, other_kit: StateKit) -> None:
    count = full(5000, 1000)
    channels = [RUN.of("ten_a", f"many_{number % (count // 2)}") for number in range(count)]
    following_now = 0

    async def follow(number: int) -> list[str]:
        nonlocal following_now
        async with followed(kit, channels[number]) as events:
            following_now += 1
            return await hear_through(events, 2, timeout_s=120)

    following = [asyncio.create_task(follow(number)) for number in range(count)]
    await until(lambda: following_now == count, timeout_s=120)
    await gather_some(tell(other_kit, "1", channel) for channel in channels[: count // 2])
    for client in await other_kit.redis.client.client_list():
        if client["name"].endswith("-listener"):
            await other_kit.redis.client.client_kill_filter(_id=client["id"])
    await gather_some(tell(other_kit, "2", channel) for channel in channels[: count // 2])
    assert await asyncio.gather(*following) == [["1", "2"]] * count


async def test_a_connection_that_is_cut_again_and_again_under_load_loses_nothing(
    kit: StateKit, other_kit: StateKit
) -> None:
    words = numbered(300)
    async with kit.realtime.subscribe(CHANNEL) as events:
        hearing = asyncio.create_task(hear_through(events, len(words)))
        for at in range(0, len(words), 30):
            await say(other_kit, *words[at : at + 15])
            for client in await other_kit.redis.client.client_list():
                if client["name"].endswith("-listener"):
                    await other_kit.redis.client.client_kill_filter(_id=client["id"])
            await say(other_kit, *words[at + 15 : at + 30])
        assert await hearing == words


async def test_a_wiped_redis_is_noticed_by_those_who_listen_and_those_who_return(
    kit: StateKit, other_kit: StateKit
) -> None:
    ids = await say(kit, *numbered(5))
    async with kit.realtime.subscribe(CHANNEL, ids[2]) as events, kit.realtime.subscribe(CHANNEL) as idle:
        assert await hear(events, 2) == ["3", "4"]
        await kit.redis.client.flushall()
        for since in (ids[0], ids[-1]):
            async with other_kit.realtime.subscribe(CHANNEL, since) as returned:
                assert not returned.recovered
        await say(other_kit, *numbered(20))
        for told in (events, idle):
            with pytest.raises(SubscriptionEndedError) as ended:
                await told.next()
            assert (ended.value.reason, ended.value.position) == ("gap", ids[-1])
        for since in ids:
            async with other_kit.realtime.subscribe(CHANNEL, since) as returned:
                assert not returned.recovered
        async with other_kit.realtime.subscribe(CHANNEL, START) as anew:
            assert anew.recovered
            assert await hear(anew, 20) == numbered(20)


async def test_a_tail_that_redis_lost_is_noticed_although_numbers_go_on(
    kit: StateKit, other_kit: StateKit
) -> None:
    ids = await say(kit, *numbered(6))
    async with kit.realtime.subscribe(CHANNEL, START) as events:
        assert await hear(events, 6) == numbered(6)
        name = f"cf:rt:s:ten_a:{CHANNEL.name}"
        await kit.redis.client.xdel(name, *ids[4:])
        await say(other_kit, "4 again", "5 again", "6")
        with pytest.raises(SubscriptionEndedError, match="gap"):
            await hear(events, 1)
    for since, recovered in ((ids[5], False), (ids[4], False), (ids[3], True)):
        async with other_kit.realtime.subscribe(CHANNEL, since) as returned:
            assert returned.recovered == recovered


async def test_an_append_that_timed_out_can_be_repeated_and_lands_once(
    kit: StateKit, other_kit: StateKit, redis_engine: RedisEngine
) -> None:
    await say(kit, "0")
    redis_engine.freeze()
    with pytest.raises(StoreUnavailableError):
        await kit.realtime.append(CHANNEL, "word", b"1", event_id="evt_1")
    redis_engine.thaw()
    await reachable(kit, other_kit)
    await other_kit.realtime.append(CHANNEL, "word", b"1", event_id="evt_1")
    await say(other_kit, "2")
    async with kit.realtime.subscribe(CHANNEL, START) as events:
        assert await hear(events, 3) == ["0", "1", "2"]
