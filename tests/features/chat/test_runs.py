"""Runs inside one replica: what their followers are told when nothing comes, or something gets lost."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.core.settings import Settings
from app.features.chat import events as run_events
from app.features.chat.answer_stream import AnswerStream
from app.features.chat.run_work import TAKEOVERS_MAX
from app.state.kit import StateKit
from tests import model_server as models
from tests.features.chat.language_model import application_with
from tests.features.chat.sse import events_of, text_of
from tests.model_server import ModelServer
from tests.waiting import until


@pytest.fixture
async def app(settings: Settings, model: ModelServer) -> AsyncIterator[FastAPI]:
    async with application_with(model, settings) as application:
        yield application


async def test_a_silent_answer_s_stream_carries_comments(
    api: httpx.AsyncClient, model: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_events, "HEARTBEAT_S", 0.2)
    monkeypatch.setattr(run_events, "POLL_S", 0.1)
    said = asyncio.Event()

    async def script(body: dict[str, Any], speaker: models.Speaker) -> None:
        await asyncio.sleep(1)
        await models.counting(2)(body, speaker)
        said.set()

    model.script = script
    answer = await api.post("/chat/stream", json={"message": "slowly"})
    assert ": still here" in answer.text
    assert text_of(events_of(answer.text)) == "word1 word2 "


async def test_an_end_that_gets_lost_leaves_nobody_hanging(
    api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lose(_: AnswerStream) -> None:
        """Nothing is told."""

    monkeypatch.setattr(AnswerStream, "end", lose)
    monkeypatch.setattr(run_events, "POLL_S", 0.1)
    events = events_of((await api.post("/chat/stream", json={"message": "count"})).text)
    assert events[-1].type == "done"
    assert text_of(events) == events[-1].data["text"]


async def test_a_replica_that_leaves_sends_its_readers_on_and_they_miss_nothing(
    api: httpx.AsyncClient, app: FastAPI, model: ModelServer
) -> None:
    model.script = models.counting(30, pause_s=0.03)
    streaming = asyncio.create_task(api.post("/chat/stream", json={"message": "count"}))
    await until(lambda: len(model.requests) == 1)
    await asyncio.sleep(0.2)  # a few words: any number will do
    app.state.draining.set()
    first = await streaming
    before = events_of(first.text)
    assert before[-1].type == "moved"
    app.state.draining.clear()
    last_id = next((event.id for event in reversed(before) if event.id), "")
    path = f"/chat/runs/{first.headers['x-run-id']}/stream"
    after = events_of((await api.get(path, headers={"Last-Event-ID": last_id})).text)
    whole = "".join(models.word(number) for number in range(1, 31))
    assert text_of([*before, *after]) == whole == after[-1].data["text"]


async def test_a_client_that_leaves_does_not_end_the_answer(
    api: httpx.AsyncClient, model: ModelServer
) -> None:
    model.script = models.counting(20, pause_s=0.02)
    asking = asyncio.create_task(api.post("/chat", json={"message": "count"}))
    await until(lambda: len(model.requests) == 1)
    asking.cancel()
    async with asyncio.timeout(20):
        while True:
            conversation = (await api.get("/chat/sessions")).json()["items"][0]
            if conversation["run_id"] is None:
                break
            await asyncio.sleep(0.05)
    items = (await api.get(f"/chat/history/{conversation['id']}")).json()["items"]
    assert items[1]["content"] == "".join(models.word(number) for number in range(1, 21))


async def test_a_run_that_was_taken_over_too_often_fails_instead_of_killing_one_replica_after_the_other(
    api: httpx.AsyncClient, app_kit: StateKit, model: ModelServer
) -> None:
    model.script = models.silent
    asking = asyncio.create_task(api.post("/chat", json={"message": "poison"}))
    await until(lambda: len(model.requests) == 1)
    over = {"run.epoch": TAKEOVERS_MAX, "run.lease_ends_at": datetime.now(UTC) - timedelta(hours=1)}
    await app_kit.mongo.collection("conversations").update_one({}, {"$set": {**over, "run.owner": "dead"}})
    answer = await asking
    assert (answer.status_code, answer.json()["code"]) == (502, "model_failed")
    assert "too often" in answer.json()["detail"]
    assert len(model.requests) == 1


async def test_an_account_that_was_closed_meanwhile_gets_no_answer_from_whoever_takes_over(
    api: httpx.AsyncClient, app_kit: StateKit, me: Any, model: ModelServer
) -> None:
    model.script = models.silent
    streaming = asyncio.create_task(api.post("/chat/stream", json={"message": "hello"}))
    await until(lambda: len(model.requests) == 1)
    await app_kit.mongo.collection("users").update_one({"_id": me.account.id}, {"$set": {"active": False}})
    over = {"run.owner": "dead", "run.lease_ends_at": datetime.now(UTC) - timedelta(hours=1)}
    await app_kit.mongo.collection("conversations").update_one({}, {"$set": over})
    events = events_of((await streaming).text)
    assert (events[-1].type, events[-1].data["code"]) == ("error", "forbidden")
    assert len(model.requests) == 1


@pytest.mark.parametrize("words", [20_000])
async def test_an_answer_without_end_is_cut_at_its_bound(
    api: httpx.AsyncClient, model: ModelServer, words: int
) -> None:
    model.script = models.counting(words)
    answer = await api.post("/chat", json={"message": "for ever"})
    assert len(answer.json()["reply"]) == 16_000
