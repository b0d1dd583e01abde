"""Rate limits on a real Redis: exact over replicas, all or nothing, and what happens without Redis."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from app.core.clock import SystemClock
from app.core.errors import StoreUnavailableError
from app.core.metrics import Metrics
from app.core.settings import Settings
from app.state.kit import StateKit
from app.state.rate_limits import LOCAL_TABLE_MAX, Charge, Limit, LocalWindows, Rate, RateLimits
from app.state.redis import RedisStore
from tests.engines import RedisEngine
from tests.waiting import until

REPLICAS = 4
AT_ONCE = 25
TEN = Rate("ten", 10, 3600)
FIVE = Rate("five", 5, 3600)
CLOSED = Rate("auth", 5, 3600, closed=True)


@pytest.fixture
async def limits(settings: Settings) -> AsyncIterator[list[RateLimits]]:
    """As many replicas' limits on one Redis."""
    async with AsyncExitStack() as stack:
        made = []
        for _ in range(REPLICAS):
            store = RedisStore(settings, SystemClock(), Metrics())
            stack.push_async_callback(store.close)
            made.append(RateLimits(store, SystemClock(), Metrics()))
        yield made


async def take_many(limits: list[RateLimits], wanted: list[Limit], count: int) -> list[Charge]:
    """Take that often, over all replicas at once."""
    gates = [asyncio.Semaphore(AT_ONCE) for _ in limits]

    async def take(n: int) -> Charge:
        async with gates[n % len(limits)]:
            return await limits[n % len(limits)].take(wanted)

    return await asyncio.gather(*(take(n) for n in range(count)))


async def allowed_again(limits: RateLimits, wanted: list[Limit]) -> Charge:
    """Take until a window that was used up has ended."""
    async with asyncio.timeout(20):
        while not (charge := await limits.take(wanted)).standing.allowed:
            assert charge.standing.reset_s == 1
            await asyncio.sleep(0.02)
    return charge


def allowed(charges: list[Charge]) -> int:
    return sum(charge.standing.allowed for charge in charges)


async def test_of_a_thousand_takes_at_once_over_four_replicas_exactly_the_limit_gets_through(
    limits: list[RateLimits],
) -> None:
    rate = Rate("exact", 137, 3600)
    charges = await take_many(limits, [Limit(rate, "usr_a")], 1000)
    assert allowed(charges) == 137
    remaining = sorted(charge.standing.remaining for charge in charges if charge.standing.allowed)
    assert remaining == list(range(137))


async def test_subjects_do_not_share_a_count(limits: list[RateLimits]) -> None:
    for subject in ("usr_a", "usr_b", "usr_a:", "usr"):
        charges = await take_many(limits, [Limit(TEN, subject)], 30)
        assert allowed(charges) == 10


async def test_a_refusal_by_one_limit_counts_against_none(limits: list[RateLimits]) -> None:
    both = [Limit(TEN, "usr_a"), Limit(FIVE, "usr_a")]
    charges = await take_many(limits, both, 100)
    assert allowed(charges) == 5
    refused = next(charge.standing for charge in charges if not charge.standing.allowed)
    assert (refused.policy, refused.amount, refused.remaining) == ("five", 5, 0)
    assert refused.reset_s > 3000
    rest = await take_many(limits, [Limit(TEN, "usr_a")], 100)
    assert allowed(rest) == 5


async def test_the_standing_is_that_of_the_limit_nearest_to_its_end(limits: list[RateLimits]) -> None:
    standing = (await limits[0].take([Limit(TEN, "usr_a"), Limit(FIVE, "usr_a")])).standing
    assert (standing.policy, standing.remaining, standing.window_s) == ("five", 4, 3600)
    await take_many(limits, [Limit(TEN, "usr_a")], 7)
    standing = (await limits[1].take([Limit(TEN, "usr_a"), Limit(FIVE, "usr_a")])).standing
    assert (standing.policy, standing.remaining) == ("ten", 1)


async def test_a_window_opens_with_its_first_request_and_ends_its_length_later(
    limits: list[RateLimits],
) -> None:
    first, second = [await one.take([Limit(FIVE, "usr_a")]) for one in limits[:2]]
    assert first.windows == second.windows, "later requests don't move the end"
    short = [Limit(Rate("short", 1, 1), "usr_a")]
    old = await limits[0].take(short)
    new = await allowed_again(limits[2], short)
    assert new.windows != old.windows
    assert new.standing.remaining == 0


async def test_a_refund_gives_one_request_back(limits: list[RateLimits]) -> None:
    both = [Limit(TEN, "usr_a"), Limit(FIVE, "usr_a")]
    charges = await take_many(limits, both, 5)
    await limits[1].refund(charges[0])
    assert allowed(await take_many(limits, both, 20)) == 1


async def test_a_refund_of_a_window_that_is_over_gives_nothing(limits: list[RateLimits]) -> None:
    old = await limits[0].take([Limit(Rate("login", 1, 1), "usr_a")])
    long = [Limit(Rate("login", 1, 3600), "usr_a")]
    await allowed_again(limits[0], long)
    await limits[1].refund(old)
    assert not (await limits[0].take(long)).standing.allowed


async def test_a_refused_request_has_nothing_to_refund(limits: list[RateLimits]) -> None:
    charges = await take_many(limits, [Limit(FIVE, "usr_a")], 6)
    refused = next(charge for charge in charges if not charge.standing.allowed)
    await limits[0].refund(refused)
    assert allowed(await take_many(limits, [Limit(FIVE, "usr_a")], 5)) == 0


async def test_concurrent_takes_and_refunds_add_up(limits: list[RateLimits]) -> None:
    """Whoever is refunded at once never was there: the limit stays exact for the others."""
    rate = [Limit(Rate("refunded", 50, 3600), "usr_a")]
    kept = 0

    async def take(n: int) -> None:
        nonlocal kept
        charge = await limits[n % REPLICAS].take(rate)
        if charge.standing.allowed and n % 2:
            await limits[n % REPLICAS].refund(charge)
        else:
            kept += charge.standing.allowed

    for start in range(0, 200, 40):
        await asyncio.gather(*(take(n) for n in range(start, start + 40)))
    assert kept <= 50
    assert allowed(await take_many(limits, rate, 100)) == 50 - kept


async def test_twins_count_once_though_all_are_sent_at_once(limits: list[RateLimits]) -> None:
    one, others = Limit(TEN, "usr_a", "twin"), Limit(TEN, "usr_a")
    assert allowed(await take_many(limits, [one], 100)) == 100
    assert allowed(await take_many(limits, [others], 100)) == 9
    assert allowed(await take_many(limits, [one], 10)) == 10, "what was counted is let through ever after"
    assert allowed(await take_many(limits, [Limit(TEN, "usr_a", "another")], 10)) == 0
    assert allowed(await take_many(limits, [Limit(TEN, "usr_b", "twin")], 1)) == 1


async def test_what_counts_for_twins_ends_with_its_window(limits: list[RateLimits]) -> None:
    await limits[0].take([Limit(TEN, "usr_a")])
    await asyncio.sleep(0.05)  # so that a whole window from here on would be seen to be too long
    twin = Limit(TEN, "usr_a", "twin")
    ((_, window_end),) = (await limits[1].take([twin])).twin_windows
    assert await limits[2]._redis.client.pexpiretime(twin.mark) == window_end


async def test_a_twin_has_nothing_to_refund_and_the_first_one_has(limits: list[RateLimits]) -> None:
    first, second = [await limits[n].take([Limit(FIVE, "usr_a", "twin")]) for n in range(2)]
    assert (len(first.twin_windows), len(second.twin_windows)) == (1, 0)
    await limits[2].refund(second)
    await limits[2].refund(first, for_twins=False)
    assert allowed(await take_many(limits, [Limit(FIVE, "usr_a")], 20)) == 4
    await limits[3].refund(first)
    assert allowed(await take_many(limits, [Limit(FIVE, "usr_a")], 20)) == 1


async def test_with_redis_frozen_a_closed_limit_refuses_and_an_open_one_allows_its_whole_amount(
    kit: StateKit, redis_engine: RedisEngine
) -> None:
    redis_engine.freeze()
    await until(lambda: kit.redis._breaker.is_open)
    with pytest.raises(StoreUnavailableError):
        await kit.limits.take([Limit(CLOSED, "a@example.com")])
    with pytest.raises(StoreUnavailableError):
        await kit.limits.take([Limit(TEN, "a@example.com"), Limit(CLOSED, "a@example.com")])
    charges = [await kit.limits.take([Limit(TEN, "usr_a")]) for _ in range(15)]
    assert [charge.standing.allowed for charge in charges] == [True] * 10 + [False] * 5
    await kit.limits.refund(charges[0])
    redis_engine.thaw()
    await until(lambda: not kit.redis._breaker.is_open)
    assert (await kit.limits.take([Limit(CLOSED, "a@example.com")])).standing.allowed


async def test_what_redis_counted_before_it_froze_causes_no_refusal_while_it_is_gone(
    kit: StateKit, redis_engine: RedisEngine
) -> None:
    assert allowed([await kit.limits.take([Limit(TEN, "usr_a")]) for _ in range(9)]) == 9
    redis_engine.freeze()
    await until(lambda: kit.redis._breaker.is_open)
    assert allowed([await kit.limits.take([Limit(TEN, "usr_a")]) for _ in range(10)]) == 10


class ByHand(SystemClock):
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def monotonic_s(self) -> float:
        return self.seconds


def test_local_windows_open_with_the_first_request_and_end() -> None:
    clock = ByHand()
    windows = LocalWindows(clock)
    wanted = [Limit(Rate("local", 2, 60), "usr_a")]
    assert [windows.take(wanted).allowed for _ in range(3)] == [True, True, False]
    clock.seconds += 30
    assert windows.take(wanted).reset_s == 30
    clock.seconds += 31
    standing = windows.take(wanted)
    assert (standing.allowed, standing.remaining, standing.reset_s) == (True, 1, 60)


def test_local_windows_count_against_all_limits_or_none() -> None:
    windows = LocalWindows(ByHand())
    both = [Limit(TEN, "usr_a"), Limit(FIVE, "usr_a")]
    assert sum(windows.take(both).allowed for _ in range(20)) == 5
    assert windows.take(both).policy == "five"
    assert sum(windows.take([Limit(TEN, "usr_a")]).allowed for _ in range(20)) == 5


def test_local_windows_count_twins_once_too() -> None:
    windows = LocalWindows(ByHand())
    one = [Limit(Rate("local", 2, 60), "usr_a", "twin")]
    assert [windows.take(one).allowed for _ in range(5)] == [True] * 5
    assert [windows.take([Limit(Rate("local", 2, 60), "usr_a")]).allowed for _ in range(2)] == [True, False]
    assert windows.take(one).allowed


def test_the_local_table_is_bounded_and_what_no_longer_fits_is_let_through() -> None:
    clock = ByHand()
    windows = LocalWindows(clock)
    one = Rate("one", 1, 60)
    for n in range(LOCAL_TABLE_MAX):
        assert windows.take([Limit(one, f"usr_{n}")]).allowed
    assert all(windows.take([Limit(one, "latecomer")]).allowed for _ in range(5))
    assert len(windows._windows) == LOCAL_TABLE_MAX
    assert not windows.take([Limit(one, "usr_7")]).allowed, "whoever is in the table stays limited"


def test_a_full_local_table_goes_on_counting_those_who_are_in_it() -> None:
    windows = LocalWindows(ByHand())
    two = Rate("two", 2, 60)
    for n in range(LOCAL_TABLE_MAX):
        windows.take([Limit(two, f"usr_{n}")])
    assert [windows.take([Limit(two, "usr_7")]).allowed for _ in range(2)] == [True, False]


def test_the_local_table_makes_room_once_windows_are_over() -> None:
    clock = ByHand()
    windows = LocalWindows(clock)
    one = Rate("one", 1, 60)
    for n in range(LOCAL_TABLE_MAX):
        windows.take([Limit(one, f"usr_{n}")])
    clock.seconds += 61
    assert [windows.take([Limit(one, "latecomer")]).allowed for _ in range(2)] == [True, False]
    assert len(windows._windows) == 1
