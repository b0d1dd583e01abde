"""One at a time through a gate, inside one process."""

import asyncio

import pytest

from app.state import turnstile
from app.state.turnstile import WAITING_MAX, CrowdedError, Turnstile


async def test_one_at_a_time_and_in_the_order_in_which_they_came() -> None:
    gates = Turnstile()
    inside = 0
    order: list[int] = []

    async def pass_through(n: int) -> None:
        nonlocal inside
        async with gates.turn("a"):
            inside += 1
            assert inside == 1
            await asyncio.sleep(0)
            order.append(n)
            inside -= 1

    await asyncio.gather(*(pass_through(n) for n in range(100)))
    assert order == list(range(100))
    assert len(gates) == 0


async def test_names_do_not_wait_for_each_other() -> None:
    gates = Turnstile()
    async with gates.turn("a"), gates.turn("b"):
        assert len(gates) == 2
    assert len(gates) == 0


async def test_more_than_may_wait_are_sent_away_at_once() -> None:
    gates = Turnstile()
    leave = asyncio.Event()

    async def pass_through() -> None:
        async with gates.turn("a"):
            await leave.wait()

    async with asyncio.TaskGroup() as group:
        for _ in range(WAITING_MAX + 1):
            group.create_task(pass_through())
        await asyncio.sleep(0)
        with pytest.raises(CrowdedError):
            async with gates.turn("a"):
                pytest.fail("came in")
        leave.set()
    assert len(gates) == 0


async def test_whoever_waits_too_long_gives_up_and_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turnstile, "WAIT_S", 0.01)
    gates = Turnstile()
    async with gates.turn("a"):
        with pytest.raises(CrowdedError) as refused:
            async with gates.turn("a"):
                pytest.fail("came in")
    assert refused.value.code == "lock_held"
    assert len(gates) == 0
    async with gates.turn("a"):
        pass


async def test_a_failure_inside_and_a_cancelled_waiter_let_the_next_one_in() -> None:
    gates = Turnstile()

    async def pass_through() -> None:
        async with gates.turn("a"):
            pass

    async def fail() -> None:
        async with gates.turn("a"):
            await asyncio.sleep(0)
            cancelled.cancel()
            raise ZeroDivisionError

    failing = asyncio.create_task(fail())
    cancelled = asyncio.create_task(pass_through())
    waiting = asyncio.create_task(pass_through())
    await waiting
    with pytest.raises(ZeroDivisionError):
        await failing
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert len(gates) == 0
