"""Answers while a store is away: nobody hangs, and what was answered is stored."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.core.settings import Settings
from app.state.kit import StateKit
from tests import model_server as models
from tests.engines import MongoEngine, RedisEngine
from tests.features.chat.language_model import application_with
from tests.features.chat.sse import events_of, text_of
from tests.model_server import ModelServer
from tests.waiting import until

WORDS = 40
WHOLE = "".join(models.word(number) for number in range(1, WORDS + 1))


@pytest.fixture
async def model(model: ModelServer) -> ModelServer:
    model.script = models.counting(WORDS, pause_s=0.03)
    return model


@pytest.fixture
async def app(settings: Settings, model: ModelServer) -> AsyncIterator[FastAPI]:
    async with application_with(model, settings) as application:
        yield application


async def stored(api: httpx.AsyncClient, session_id: str) -> list[str]:
    items = (await api.get(f"/chat/history/{session_id}")).json()["items"]
    return [item["content"] for item in items]


async def begun(model: ModelServer) -> None:
    await until(lambda: len(model.requests) == 1)
    await asyncio.sleep(0.2)  # a few words: any number will do


async def test_without_redis_the_whole_answer_comes_at_once_and_is_stored(
    api: httpx.AsyncClient, redis_engine: RedisEngine
) -> None:
    redis_engine.kill()
    waited = await api.post("/chat", json={"message": "count"})
    assert (waited.status_code, waited.json()["reply"]) == (200, WHOLE)
    streamed = await api.post("/chat/stream", json={"message": "count"})
    last = events_of(streamed.text)[-1]
    assert (last.type, last.data["text"]) == ("done", WHOLE)
    assert await stored(api, streamed.headers["x-session-id"]) == ["count", WHOLE]


async def test_redis_dying_and_coming_back_costs_no_word(
    api: httpx.AsyncClient, redis_engine: RedisEngine, model: ModelServer
) -> None:
    streaming = asyncio.create_task(api.post("/chat/stream", json={"message": "count"}))
    await begun(model)
    redis_engine.kill()
    await asyncio.sleep(0.3)  # into the outage
    await asyncio.to_thread(redis_engine.start)
    answer = await streaming
    events = events_of(answer.text)
    assert (events[-1].type, events[-1].data["text"]) == ("done", WHOLE)
    shown = text_of(events[:-1])
    assert WHOLE.startswith(shown)
    assert await stored(api, answer.headers["x-session-id"]) == ["count", WHOLE]


async def test_redis_losing_its_data_in_the_middle_is_made_up_for_by_a_snapshot(
    api: httpx.AsyncClient, redis_engine: RedisEngine, model: ModelServer
) -> None:
    streaming = asyncio.create_task(api.post("/chat/stream", json={"message": "count"}))
    await begun(model)
    redis_engine.flush()
    answer = await streaming
    events = events_of(answer.text)
    assert (events[-1].type, events[-1].data["text"]) == ("done", WHOLE)
    assert text_of(events[:-1]) == WHOLE
    assert "snapshot" in {event.type for event in events}
    again = events_of((await api.get(f"/chat/runs/{answer.headers['x-run-id']}/stream")).text)
    assert text_of(again[:-1]) == WHOLE


async def test_a_frozen_mongodb_delays_the_end_and_loses_nothing(
    api: httpx.AsyncClient, mongo_engine: MongoEngine, model: ModelServer
) -> None:
    streaming = asyncio.create_task(api.post("/chat/stream", json={"message": "count"}))
    await begun(model)
    mongo_engine.freeze()
    await asyncio.sleep(3)  # beyond the model's last word and the lease
    mongo_engine.thaw()
    answer = await streaming
    events = events_of(answer.text)
    assert (events[-1].type, events[-1].data["text"]) == ("done", WHOLE)
    assert text_of(events[:-1]) == WHOLE

    async def settled() -> dict[str, Any]:
        return (await api.get("/chat/sessions")).json()["items"][0]

    async with asyncio.timeout(20):
        while (await settled())["run_id"] is not None:  # noqa: ASYNC110  # what is waited for is in MongoDB
            await asyncio.sleep(0.1)
    assert await stored(api, answer.headers["x-session-id"]) == ["count", WHOLE]


async def test_a_conversation_deleted_while_it_is_answered_is_gone_and_its_reader_is_told(
    api: httpx.AsyncClient, app_kit: StateKit, model: ModelServer
) -> None:
    streaming = asyncio.create_task(api.post("/chat/stream", json={"message": "count"}))
    await begun(model)
    conversation = (await api.get("/chat/sessions")).json()["items"][0]
    assert conversation["run_id"] is not None
    assert (await api.delete(f"/chat/{conversation['id']}")).status_code == 204
    events = events_of((await streaming).text)
    assert (events[-1].type, events[-1].data["code"]) == ("error", "not_found")
    assert await app_kit.mongo.collection("messages").count_documents({}) == 0
    assert [key async for key in app_kit.redis.client.scan_iter("cf:rt:s:*")] == []


async def test_a_title_is_made_by_a_job_with_the_model(
    api: httpx.AsyncClient, app_kit: StateKit, model: ModelServer
) -> None:
    from app.features.chat import jobs  # noqa: PLC0415  # what a worker imports
    from app.state.job_worker import work_on_jobs  # noqa: PLC0415

    model.script = models.echoing()
    await api.post("/chat", json={"message": "where are my loads?"})
    assert (await api.get("/chat/sessions")).json()["items"][0]["title"] == "where are my loads?"

    async def two_words(_: dict[str, Any], speaker: models.Speaker) -> None:
        await speaker.begin()
        await speaker.say('"Loads, wherever."')
        await speaker.end()

    model.script = two_words
    stop = asyncio.Event()
    handlers = jobs.handlers(app_kit)
    working = asyncio.create_task(
        work_on_jobs(app_kit, stop, handlers=handlers, outboxes=[jobs.COLLECTION], table=())
    )
    async with asyncio.timeout(30):
        while (await api.get("/chat/sessions")).json()["items"][0]["title"] != "Loads, wherever":  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    stop.set()
    await working
