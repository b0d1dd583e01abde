"""Automatic pipelining: who gets which reply, and what a broken or silent connection costs."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import redis.asyncio
import redis.exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from app.state.pipelining import AutoPipeline
from tests.engines import RedisEngine
from tests.waiting import until

TIMEOUT_S = 1.0


@pytest.fixture
async def pipeline(redis_url: str) -> AsyncIterator[AutoPipeline]:
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        redis_url,
        retry=Retry(NoBackoff(), 0),
        socket_connect_timeout=TIMEOUT_S,
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )
    opened = AutoPipeline(pool, timeout_s=TIMEOUT_S)
    yield opened
    await opened.close()


async def commands_so_far(other: redis.asyncio.Redis) -> int:
    return int((await other.info("stats"))["total_reads_processed"])


@pytest.fixture
async def other(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        yield client


async def test_a_thousand_callers_at_once_get_each_the_reply_to_their_own_command(
    pipeline: AutoPipeline,
) -> None:
    replies = await asyncio.gather(*(pipeline.execute(("ECHO", str(number))) for number in range(1000)))
    assert replies == [str(number).encode() for number in range(1000)]


async def test_callers_at_once_share_a_read_of_the_server(
    pipeline: AutoPipeline, other: redis.asyncio.Redis
) -> None:
    await pipeline.execute(("PING",))
    before = await commands_so_far(other)
    await asyncio.gather(*(pipeline.execute(("INCR", "n")) for _ in range(100)))
    assert await commands_so_far(other) - before < 20
    assert await other.get("n") == b"100"


async def test_an_error_reply_is_its_callers_alone(pipeline: AutoPipeline) -> None:
    good, bad, also_good = await asyncio.gather(
        pipeline.execute(("SET", "text", "a")),
        pipeline.execute(("INCR", "text")),
        pipeline.execute(("GET", "text")),
        return_exceptions=True,
    )
    assert (good, also_good) == (b"OK", b"a")
    assert isinstance(bad, redis.exceptions.ResponseError)


async def test_the_reply_of_a_caller_who_has_gone_is_nobody_elses(
    pipeline: AutoPipeline, redis_engine: RedisEngine
) -> None:
    await pipeline.execute(("PING",))
    redis_engine.freeze()
    gone = asyncio.create_task(pipeline.execute(("ECHO", "gone")))
    await asyncio.sleep(0)
    stays = asyncio.create_task(pipeline.execute(("ECHO", "stays")))
    await asyncio.sleep(0)
    gone.cancel()
    redis_engine.thaw()
    assert await stays == b"stays"
    assert await pipeline.execute(("ECHO", "next")) == b"next"
    assert gone.cancelled()


async def test_a_connection_that_died_while_idle_costs_no_caller_anything(
    pipeline: AutoPipeline, other: redis.asyncio.Redis
) -> None:
    for _ in range(10):
        assert await pipeline.execute(("PING",)) == b"PONG"
        assert await other.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes") >= 1
        link = pipeline._link
        assert link is not None
        await until(lambda link=link: link.is_lost)


async def test_a_redis_that_does_not_answer_fails_all_who_wait_and_serves_the_next_once_it_is_back(
    pipeline: AutoPipeline, redis_engine: RedisEngine
) -> None:
    await pipeline.execute(("PING",))
    redis_engine.freeze()
    outcomes = await asyncio.gather(
        *(pipeline.execute(("ECHO", str(number))) for number in range(50)), return_exceptions=True
    )
    assert {type(outcome) for outcome in outcomes} == {TimeoutError}
    redis_engine.thaw()
    assert await pipeline.execute(("ECHO", "back")) == b"back"


async def test_nobody_is_told_that_time_is_over_sooner_because_of_those_who_asked_before(
    pipeline: AutoPipeline, redis_engine: RedisEngine
) -> None:
    await pipeline.execute(("PING",))
    loop = asyncio.get_running_loop()

    async def waited_s() -> float:
        asked_s = loop.time()
        with pytest.raises(TimeoutError):
            await pipeline.execute(("PING",))
        return loop.time() - asked_s

    redis_engine.freeze()
    callers = []
    for _ in range(30):  # for as long as three timeouts: in a batch, in the queue, and while it connects
        callers.append(asyncio.create_task(waited_s()))
        await asyncio.sleep(TIMEOUT_S / 10)
    waits = await asyncio.gather(*callers)
    redis_engine.thaw()
    assert min(waits) >= TIMEOUT_S - 0.01  # the loop counts whole milliseconds
    assert await pipeline.execute(("ECHO", "back")) == b"back"


async def test_a_killed_redis_fails_all_who_wait_and_serves_the_next_once_it_is_back(
    pipeline: AutoPipeline, redis_engine: RedisEngine
) -> None:
    await pipeline.execute(("PING",))
    redis_engine.freeze()
    waiting = [asyncio.create_task(pipeline.execute(("ECHO", str(number)))) for number in range(50)]
    await asyncio.sleep(0)
    redis_engine.kill()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(each, redis.exceptions.ConnectionError) for each in outcomes), outcomes[:3]
    redis_engine.start()
    assert await pipeline.execute(("ECHO", "back")) == b"back"


async def test_closing_cancels_who_still_waits(pipeline: AutoPipeline, redis_engine: RedisEngine) -> None:
    await pipeline.execute(("PING",))
    redis_engine.freeze()
    waiting = asyncio.create_task(pipeline.execute(("PING",)))
    await asyncio.sleep(0)
    await pipeline.close()
    await until(waiting.done)
    assert waiting.cancelled()
