"""The breaker and the guard: what a store that does not answer costs its callers."""

import asyncio

import pytest

from app.core.clock import SystemClock
from app.core.errors import StoreUnavailableError
from app.core.metrics import Metrics
from app.state.breaker import Breaker, StoreGuard
from app.state.kit import StateKit
from tests.engines import MongoEngine, RedisEngine
from tests.waiting import until


class GoneError(Exception):
    pass


def guard(breaker: Breaker, *, timeout_s: float = 5.0) -> StoreGuard:
    return StoreGuard(
        breaker=breaker,
        command="test.call",
        timeout_s=timeout_s,
        unavailable=(GoneError,),
        clock=SystemClock(),
        metrics=Metrics(),
    )


async def fail(breaker: Breaker) -> None:
    with pytest.raises(StoreUnavailableError):
        async with guard(breaker):
            raise GoneError


async def answer(breaker: Breaker) -> None:
    async with guard(breaker):
        pass


async def test_the_breaker_opens_at_the_third_failure_in_a_row_and_then_lets_no_call_through() -> None:
    breaker = Breaker("Redis", Metrics())
    for _ in range(2):
        await fail(breaker)
        assert not breaker.is_open
    await fail(breaker)
    assert breaker.is_open
    with pytest.raises(StoreUnavailableError) as refused:
        async with guard(breaker):
            pytest.fail("the body of an open breaker's guard ran")
    assert refused.value.store == "Redis"
    assert refused.value.headers["Retry-After"] == "2"


async def test_an_answer_in_between_starts_the_count_anew() -> None:
    breaker = Breaker("Redis", Metrics())
    for _ in range(5):
        await fail(breaker)
        await fail(breaker)
        await answer(breaker)
    assert not breaker.is_open


async def test_an_answer_closes_an_open_breaker() -> None:
    breaker = Breaker("Redis", Metrics())
    for _ in range(3):
        breaker.failed(GoneError())
    breaker.succeeded()
    assert not breaker.is_open
    await answer(breaker)
    await fail(breaker)
    assert not breaker.is_open


async def test_a_call_that_takes_too_long_is_cut_off_and_counts_as_a_failure() -> None:
    breaker = Breaker("Redis", Metrics())
    for _ in range(3):
        with pytest.raises(StoreUnavailableError):
            async with guard(breaker, timeout_s=0.01):
                await asyncio.Event().wait()
    assert breaker.is_open


async def test_an_error_that_the_store_answered_with_passes_through_and_is_no_failure() -> None:
    breaker = Breaker("MongoDB", Metrics())
    for _ in range(5):
        with pytest.raises(ZeroDivisionError):
            async with guard(breaker):
                raise ZeroDivisionError
    assert not breaker.is_open


async def test_a_caller_who_was_cancelled_says_nothing_about_the_store() -> None:
    breaker = Breaker("MongoDB", Metrics())

    async def wait_for_ever() -> None:
        async with guard(breaker):
            await asyncio.Event().wait()

    for _ in range(5):
        task = asyncio.create_task(wait_for_ever())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not breaker.is_open


async def test_the_breaker_shows_in_the_metrics() -> None:
    metrics = Metrics()
    breaker = Breaker("Redis", metrics)
    assert b'cargoflow_breaker_open{store="Redis"} 0.0' in metrics.exposition()
    for _ in range(3):
        breaker.failed(GoneError())
    assert b'cargoflow_breaker_open{store="Redis"} 1.0' in metrics.exposition()


async def test_a_frozen_redis_is_refused_at_once_after_a_while_and_used_again_when_it_thaws(
    kit: StateKit, redis_engine: RedisEngine
) -> None:
    redis_engine.freeze()
    await until(lambda: kit.redis._breaker.is_open)
    with pytest.raises(StoreUnavailableError):
        async with kit.redis.guard("test.ping"):
            pytest.fail("the body of an open breaker's guard ran")
    redis_engine.thaw()
    await until(lambda: not kit.redis._breaker.is_open)
    async with kit.redis.guard("test.ping"):
        assert await kit.redis.client.ping()


async def test_a_frozen_mongodb_is_refused_at_once_after_a_while_and_used_again_when_it_thaws(
    kit: StateKit, mongo_engine: MongoEngine
) -> None:
    mongo_engine.freeze()
    await until(lambda: kit.mongo._breaker.is_open)
    with pytest.raises(StoreUnavailableError) as refused:
        async with kit.mongo.guard("test.find"):
            pytest.fail("the body of an open breaker's guard ran")
    assert refused.value.store == "MongoDB"
    mongo_engine.thaw()
    await until(lambda: not kit.mongo._breaker.is_open)
    async with kit.mongo.guard("test.find"):
        assert await kit.mongo.collection("anything").find_one({}) is None
