"""Event streams through the kits of two replicas on one Redis."""

import asyncio
from contextlib import suppress
from random import Random

import pytest

from app.core.errors import PayloadTooLargeError
from app.core.settings import Settings
from app.state import keys
from app.state.channels import START, ChannelKind
from app.state.kit import StateKit, open_kit
from app.state.listener import _TAKEN_AT_ONCE
from app.state.realtime import EVENT_MAX_BYTES, StaleEpochError
from app.state.subscriptions import PAGE_MAX, QUEUE_MAX, Page, SubscriptionEndedError
from tests.cluster.counts import full
from tests.state.streams import (
    CHANNEL,
    RUN,
    SHORT,
    followed,
    gather_some,
    hear,
    hear_through,
    nothing_more,
    numbered,
    say,
    tell,
    words_of,
)
from tests.waiting import held_by_one_task, until

CHANCE = Random(7)  # noqa: S311  # which replica, and how long: nothing secret


async def listeners(kit: StateKit) -> int:
    """How many connections of this kit's replica listen."""
    clients = await kit.redis.client.client_list()
    return sum(client["name"].endswith("-listener") for client in clients)


async def test_events_arrive_on_every_replica_in_order_with_ids_and_numbers(
    kit: StateKit, other_kit: StateKit
) -> None:
    async with kit.realtime.subscribe(CHANNEL) as here, other_kit.realtime.subscribe(CHANNEL) as there:
        assert here.recovered
        first = await kit.realtime.append(CHANNEL, "word", b'{"text":"a\\nb"}', epoch=3)
        second = await other_kit.realtime.append(CHANNEL, "done", b"{}", epoch=3)
        assert (first.number, second.number) == (1, 2)
        for events in (here, there):
            async with asyncio.timeout(20):
                one, two = await events.next(), await events.next()
            assert (one.id, one.type, one.data, one.epoch) == (first.id, "word", b'{"text":"a\\nb"}', 3)
            assert (two.id, two.type) == (second.id, "done")
            assert events.position == second.id


async def test_what_many_append_at_once_has_one_order(kit: StateKit, other_kit: StateKit) -> None:
    words = numbered(full(RUN.length_max, 200))
    async with kit.realtime.subscribe(CHANNEL) as here, other_kit.realtime.subscribe(CHANNEL) as there:
        hearing = [asyncio.create_task(hear(events, len(words))) for events in (here, there)]
        await gather_some(say(CHANCE.choice((kit, other_kit)), word) for word in words)
        heard = await asyncio.gather(*hearing)
    assert heard[0] == heard[1]
    assert sorted(heard[0]) == sorted(words)
    page = await kit.realtime.read(CHANNEL, START, limit=len(words))
    assert [event.position[1] for event in page.events] == list(range(1, len(words) + 1))


async def test_another_tenants_channel_of_the_same_name_is_another(kit: StateKit) -> None:
    theirs = RUN.of("ten_b", "run_1")
    assert theirs.name == CHANNEL.name == "test_run:run_1"
    await say(kit, "theirs", channel=theirs)
    async with kit.realtime.subscribe(CHANNEL, START) as events:
        await say(kit, "theirs", channel=theirs)
        await say(kit, "ours")
        assert await hear(events, 1) == ["ours"]
        assert await nothing_more(events)


@pytest.mark.parametrize("text", ["a b", "*", "a:b", "", "x" * 129, "a\n"])
def test_what_is_no_id_names_no_channel(text: str) -> None:
    with pytest.raises(ValueError, match="there is no channel"):
        RUN.of(text, "run_1")
    if text:
        with pytest.raises(ValueError, match="there is no channel"):
            RUN.of("ten_a", text)


async def test_a_consumer_resumes_on_the_other_replica_where_it_stopped(
    kit: StateKit, other_kit: StateKit
) -> None:
    await say(kit, *numbered(10))
    async with kit.realtime.subscribe(CHANNEL, START) as events:
        assert await hear(events, 4) == numbered(4)
        position = events.position
    await say(kit, "10")
    async with other_kit.realtime.subscribe(CHANNEL, position) as events:
        assert events.recovered
        await say(kit, "11")
        assert await hear(events, 8) == numbered(8, 4)
        assert await nothing_more(events)


@pytest.mark.parametrize("backlog", [0, 1, PAGE_MAX - 1, PAGE_MAX, PAGE_MAX + 1, 3 * PAGE_MAX])
async def test_between_replay_and_live_nothing_is_missing_or_twice(
    kit: StateKit, other_kit: StateKit, backlog: int
) -> None:
    await gather_some(say(kit, word) for word in numbered(backlog))
    live = 100

    async def go_on() -> None:
        for word in numbered(live, backlog):
            await say(other_kit, word)

    producing = asyncio.create_task(go_on())
    async with kit.realtime.subscribe(CHANNEL, START) as events:
        async with asyncio.timeout(30):
            numbers = [(await events.next()).position[1] for _ in range(backlog + live)]
        await producing
        assert numbers == list(range(1, backlog + live + 1))
        assert await nothing_more(events)


async def test_what_is_published_while_a_page_is_on_its_way_is_not_missed(
    kit: StateKit, other_kit: StateKit
) -> None:
    await say(kit, "page")
    async with kit.realtime.subscribe(CHANNEL) as events:
        read = events._read

        async def read_slowly(since: str) -> Page:
            page = await read(since)
            if not page.events:
                return page
            await say(other_kit, "late")
            await until(lambda: events._missed)
            return page

        events._read, events._behind = read_slowly, True
        await events.start(START)
        assert await hear(events, 2) == ["page", "late"]


async def test_many_who_come_and_go_while_events_flow_each_see_an_unbroken_piece(
    kit: StateKit, other_kit: StateKit
) -> None:
    flowing = True

    async def produce() -> None:
        while flowing:
            await say(kit, "x")

    async def visit(host: StateKit, since: str) -> None:
        for _ in range(full(50, 10)):
            async with host.realtime.subscribe(CHANNEL, since) as events:
                assert events.recovered
                came = events.position
                async with asyncio.timeout(30):
                    numbers = [(await events.next()).position[1] for _ in range(CHANCE.randint(1, 20))]
                first = int(came.split("-")[1]) + 1
                assert numbers == list(range(first, first + len(numbers)))
                since = events.position if since else ""

    producing = asyncio.create_task(produce())
    await asyncio.gather(*(visit(host, since) for host in (kit, other_kit) for since in (START, "") * 3))
    flowing = False
    await producing


async def test_a_position_that_was_trimmed_is_not_recovered(kit: StateKit, other_kit: StateKit) -> None:
    ids = await say(kit, *numbered(30), channel=SHORT.of("ten_a", "s"))
    channel = SHORT.of("ten_a", "s")
    page = await kit.realtime.read(channel, ids[-5])
    assert page.recovered
    assert words_of(page.events) == numbered(4, 26)
    for since in (START, ids[0], ids[5]):
        async with other_kit.realtime.subscribe(channel, since) as events:
            assert not events.recovered
            assert events.position == ids[-1]
            await say(kit, "now", channel=channel)
            assert await hear(events, 1) == ["now"]
            ids.append(events.position)


@pytest.mark.parametrize(
    "since", ["1-1", "99999999999999-7", "rubbish", "-", "+", "$", "0-0-0", "(1-1", "1" * 400, "é"]
)
async def test_a_position_nobody_gave_out_is_not_recovered(kit: StateKit, since: str) -> None:
    await say(kit, "before")
    async with kit.realtime.subscribe(CHANNEL, since) as events:
        assert not events.recovered
        await say(kit, "after")
        assert await hear(events, 1) == ["after"]


async def test_a_stream_is_bounded_and_ends_after_its_last_event(
    kit: StateKit,
) -> None:
    channel = SHORT.of("ten_a", "bounded")
    for word in numbered(100):
        await kit.realtime.append(channel, "word", word.encode(), event_id=f"id-{word}")
        assert await kit.redis.client.xlen(keys.stream("ten_a", channel.name)) <= 11
    assert await kit.redis.client.hlen(keys.stream_guard("ten_a", channel.name)) <= 11
    for name in (keys.stream("ten_a", channel.name), keys.stream_guard("ten_a", channel.name)):
        assert 0 < await kit.redis.client.pttl(name) <= SHORT.ttl_s * 1000


async def test_an_event_id_that_is_still_held_lands_once(kit: StateKit, other_kit: StateKit) -> None:
    async with kit.realtime.subscribe(CHANNEL) as events:
        landed = await asyncio.gather(
            *(
                CHANCE.choice((kit, other_kit)).realtime.append(CHANNEL, "word", b"once", event_id="evt_1")
                for _ in range(20)
            )
        )
        assert len({one.id for one in landed}) == 1
        assert sum(not one.repeated for one in landed) == 1
        await say(kit, "next")
        assert await hear(events, 2) == ["once", "next"]


async def test_what_is_not_held_any_more_may_land_again(kit: StateKit) -> None:
    channel = SHORT.of("ten_a", "again")
    await kit.realtime.append(channel, "word", b"1", event_id="evt_1")
    await say(kit, *numbered(30), channel=channel)
    assert not (await kit.realtime.append(channel, "word", b"1", event_id="evt_1")).repeated


async def test_a_lower_epoch_is_refused_from_the_successors_first_append_on(
    kit: StateKit, other_kit: StateKit
) -> None:
    await say(kit, "old", epoch=1)
    await say(other_kit, "new", epoch=2)
    for epoch in (1, 0):
        with pytest.raises(StaleEpochError):
            await say(kit, "late", epoch=epoch)
    await say(other_kit, "newer", epoch=2)
    assert words_of((await kit.realtime.read(CHANNEL, START)).events) == ["old", "new", "newer"]


async def test_a_successor_that_has_fenced_reads_all_its_predecessor_ever_published(
    kit: StateKit, other_kit: StateKit
) -> None:
    published = []

    async def predecessor() -> None:
        with suppress(StaleEpochError):
            while True:
                published.extend(await say(kit, "old", epoch=1))

    running = asyncio.create_task(predecessor())
    await until(lambda: len(published) > 10)
    last = await other_kit.realtime.fence(CHANNEL, epoch=2)
    page = await other_kit.realtime.read(CHANNEL, START, limit=10_000)
    assert page.events[-1].id == page.position == last
    await running
    assert published[-1] == last
    with pytest.raises(StaleEpochError):
        await kit.realtime.fence(CHANNEL, epoch=1)
    assert await other_kit.realtime.fence(CHANNEL, epoch=2) == last


async def test_what_is_discarded_is_gone_and_its_producer_refused(kit: StateKit, other_kit: StateKit) -> None:
    last = await kit.realtime.append(CHANNEL, "word", b"{}", epoch=1, event_id="1")
    await other_kit.realtime.discard(CHANNEL, epoch=2)
    with pytest.raises(StaleEpochError):
        await kit.realtime.append(CHANNEL, "word", b"{}", epoch=1, event_id="2")
    with pytest.raises(StaleEpochError):
        await kit.realtime.discard(CHANNEL, epoch=1)
    page = await kit.realtime.read(CHANNEL, START)
    assert (page.recovered, page.events) == (True, [])
    assert not (await kit.realtime.read(CHANNEL, last.id)).recovered
    again = await other_kit.realtime.append(CHANNEL, "word", b"{}", epoch=2, event_id="1")
    assert (again.number, again.repeated) == (1, False)


async def test_a_fence_on_a_channel_without_events_holds(kit: StateKit) -> None:
    assert await kit.realtime.fence(CHANNEL, epoch=5) == START
    with pytest.raises(StaleEpochError):
        await say(kit, "late", epoch=4)
    async with kit.realtime.subscribe(CHANNEL, START) as events:
        assert events.recovered


async def test_a_slow_consumer_is_cut_and_resumes_while_a_quick_one_gets_everything(
    kit: StateKit, other_kit: StateKit
) -> None:
    words = numbered(QUEUE_MAX + 100)
    async with kit.realtime.subscribe(CHANNEL) as slow, kit.realtime.subscribe(CHANNEL) as quick:
        hearing = asyncio.create_task(hear(quick, len(words)))
        await say(kit, *words[:2])
        assert await hear(slow, 2) == words[:2]
        await say(kit, *words[2:])
        assert await hearing == words
        with pytest.raises(SubscriptionEndedError) as ended:
            await slow.next()
        assert (ended.value.reason, ended.value.position) == ("slow", slow.position)
        assert len(slow._queue) == 0
        assert quick.end is None
    async with other_kit.realtime.subscribe(CHANNEL, slow.position) as resumed:
        assert resumed.recovered
        assert await hear(resumed, len(words) - 2) == words[2:]


async def test_one_who_takes_events_at_once_is_not_cut_by_a_burst(kit: StateKit, other_kit: StateKit) -> None:
    assert _TAKEN_AT_ONCE < QUEUE_MAX / 4
    words = numbered(RUN.length_max)
    async with kit.realtime.subscribe(CHANNEL) as events:
        hearing = asyncio.create_task(hear(events, len(words)))
        await gather_some(say(other_kit, word) for word in words)
        assert sorted(await hearing, key=int) == words


async def test_one_who_catches_up_slowly_is_not_cut_and_holds_one_page(kit: StateKit) -> None:
    words = numbered(3 * PAGE_MAX)
    await gather_some(say(kit, word) for word in words)
    async with kit.realtime.subscribe(CHANNEL, START, queue_max=1) as events:
        await hear(events, 1)
        await say(kit, *numbered(10, len(words)))
        assert len(events._queue) < PAGE_MAX
        await hear(events, len(words) - 1)
        assert await hear(events, 10) == numbered(10, len(words))


async def test_waiting_for_an_event_can_be_given_up_without_losing_one(kit: StateKit) -> None:
    async with kit.realtime.subscribe(CHANNEL) as events:
        producing = asyncio.create_task(say(kit, *numbered(50)))
        heard: list[str] = []
        async with asyncio.timeout(30):
            while len(heard) < 50:
                try:
                    async with asyncio.timeout(CHANCE.uniform(0, 0.002)):
                        heard.append((await events.next()).data.decode())
                except TimeoutError:
                    continue
        assert heard == numbered(50)
        await producing


async def test_thousands_of_channels_are_one_connection(kit: StateKit, other_kit: StateKit) -> None:
    count = full(5000, 1500)
    channels = [RUN.of("ten_a", f"many_{number}") for number in range(count)]
    heard = 0
    open_ = asyncio.Event()

    async def follow(number: int) -> None:
        nonlocal heard
        async with followed(kit, channels[number]) as events:
            there[number] = True
            await open_.wait()
            assert await hear_through(events, 1, timeout_s=120) == [str(number)]
            heard += 1

    there = [False] * count
    following = [asyncio.create_task(follow(number)) for number in range(count)]
    await until(lambda: all(there), timeout_s=120)
    assert kit.realtime._listener.channels == count
    assert await listeners(kit) == 1
    open_.set()
    await gather_some(tell(other_kit, str(number), channel) for number, channel in enumerate(channels))
    await asyncio.gather(*following)
    assert heard == count
    assert kit.realtime._listener.channels == 0


async def test_following_and_leaving_the_same_channel_again_and_again_hears_every_event(
    kit: StateKit, other_kit: StateKit
) -> None:
    async def visit(times: int) -> None:
        for _ in range(times):
            async with kit.realtime.subscribe(CHANNEL) as events:
                (said,) = await say(other_kit, "x")
                async with asyncio.timeout(20):
                    while (await events.next()).id != said:
                        pass
            await asyncio.sleep(CHANCE.uniform(0, 0.003))

    await asyncio.gather(*(visit(full(200, 40)) for _ in range(4)))
    await until(lambda: not kit.realtime._listener._sent, timeout_s=20)
    assert not kit.realtime._listener._asked
    assert not kit.realtime._listener._left


async def test_what_somebody_else_publishes_there_is_passed_over(kit: StateKit) -> None:
    async with kit.realtime.subscribe(CHANNEL) as events:
        for rubbish in (b"", b"rubbish", b"1-1\nx\nword\n{}", b"\xff\n1\nword\n"):
            await kit.redis.client.publish(keys.stream("ten_a", CHANNEL.name), rubbish)
        await say(kit, "ours")
        assert await hear(events, 1) == ["ours"]


async def test_when_the_process_ends_consumers_are_told(settings: Settings) -> None:
    leaving = held_by_one_task(open_kit(settings))
    kit = await leaving.__aenter__()
    await until(lambda: kit.redis.health.status == "pass")
    async with kit.realtime.subscribe(CHANNEL) as events:
        waiting = asyncio.create_task(events.next())
        await asyncio.sleep(0)
        await leaving.__aexit__(None, None, None)
        with pytest.raises(SubscriptionEndedError, match="closed"):
            await waiting


async def test_an_event_is_bounded_and_its_type_a_name(kit: StateKit) -> None:
    await kit.realtime.append(CHANNEL, "word", b"x" * EVENT_MAX_BYTES)
    with pytest.raises(PayloadTooLargeError):
        await kit.realtime.append(CHANNEL, "word", b"x" * (EVENT_MAX_BYTES + 1))
    with pytest.raises(ValueError, match="type"):
        await kit.realtime.append(CHANNEL, "two\nlines", b"x")
    with pytest.raises(ValueError, match="kind"):
        ChannelKind("none", length_max=0, ttl_s=1)
    assert len((await kit.realtime.read(CHANNEL, START)).events) == 1


async def test_what_became_of_events_and_subscriptions_is_counted(kit: StateKit) -> None:
    await say(kit, "a", epoch=1)
    with pytest.raises(StaleEpochError):
        await say(kit, "b")
    async with kit.realtime.subscribe(CHANNEL, "1-1"):
        pass
    text = kit.metrics.exposition().decode()
    for outcome in ("appended", "refused", "unrecovered"):
        assert f'cargoflow_realtime_total{{kind="test_run",outcome="{outcome}"}} 1.0' in text
