"""Questions with an `Idempotency-Key`: one turn and one run, however often and through whichever replica, and
every repeat gets that run's answer.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.core.settings import Settings
from app.features.chat.runs import Runs
from app.state.kit import StateKit
from tests import model_server as models
from tests.features.chat.language_model import application_with
from tests.features.chat.sse import events_of, text_of
from tests.model_server import ModelServer, Speaker
from tests.state.people import Person, new_person
from tests.waiting import until

KEY = {"Idempotency-Key": "k-1"}
BOTH = pytest.mark.parametrize("path", ["/chat", "/chat/stream"])
WORDS = 20
WHOLE = "".join(models.word(number) for number in range(1, WORDS + 1))


@pytest.fixture
async def app(settings: Settings, model: ModelServer) -> AsyncIterator[FastAPI]:
    async with application_with(model, settings) as application:
        yield application


@pytest.fixture
def said(model: ModelServer) -> asyncio.Event:
    """Has the model say half of its words, and the others once this is set."""
    go_on = asyncio.Event()

    async def script(_: dict[str, Any], speaker: Speaker) -> None:
        await speaker.begin()
        for number in range(1, WORDS + 1):
            await speaker.say(models.word(number))
            if number == WORDS // 2:
                await go_on.wait()
        await speaker.end()

    model.script = script
    return go_on


async def ask(
    api: httpx.AsyncClient, path: str, message: str = "count", session_id: str | None = None, **more: Any
) -> httpx.Response:
    headers = {**KEY, **more.pop("headers", {})}
    body = {"message": message, "session_id": session_id}
    return await api.post(path, json=body, headers=headers, **more)


def named(answer: httpx.Response) -> tuple[str, str]:
    """Return the run and the conversation that an answer names."""
    return answer.headers["x-run-id"], answer.headers.get("x-session-id") or answer.json()["session_id"]


def is_replay(answer: httpx.Response) -> bool:
    return answer.headers.get("idempotent-replayed") == "true"


async def questions_in(api: httpx.AsyncClient, session_id: str) -> list[str]:
    page = (await api.get(f"/chat/history/{session_id}", params={"limit": 100})).json()
    return [item["content"] for item in page["items"] if item["role"] == "user"]


@BOTH
@pytest.mark.parametrize("is_first_turn", [True, False])
async def test_a_question_that_is_repeated_is_asked_once_and_answered_the_same(
    api: httpx.AsyncClient, model: ModelServer, path: str, is_first_turn: bool
) -> None:
    session_id, expected = None, ["count"]
    if not is_first_turn:
        session_id = (await api.post("/chat", json={"message": "before"})).json()["session_id"]
        expected = ["before", "count"]
    first = await ask(api, path, session_id=session_id)
    assert first.status_code == 200
    assert not is_replay(first)
    for _ in range(3):
        again = await ask(api, path, session_id=session_id)
        assert is_replay(again)
        assert (again.status_code, again.content) == (200, first.content)
        assert named(again) == named(first)
    assert await questions_in(api, named(first)[1]) == expected
    assert len((await api.get("/chat/sessions")).json()["items"]) == 1
    assert len(model.requests) == len(expected)


async def test_while_it_is_answered_a_repeat_follows_the_answer_from_its_start(
    api: httpx.AsyncClient, model: ModelServer, said: asyncio.Event
) -> None:
    said.set()
    session_id = (await api.post("/chat", json={"message": "before"})).json()["session_id"]
    said.clear()
    first = asyncio.create_task(ask(api, "/chat/stream", session_id=session_id))
    await until(lambda: len(model.requests) == 2)
    repeats = [asyncio.create_task(ask(api, "/chat/stream", session_id=session_id)) for _ in range(3)]
    other = await ask(api, "/chat", "else", session_id, headers={"Idempotency-Key": "k-2"})
    assert (other.status_code, other.json()["code"]) == (409, "run_in_progress")
    said.set()
    answers = [await first, *[await repeat for repeat in repeats]]
    assert [is_replay(answer) for answer in answers] == [False, True, True, True]
    assert {named(answer) for answer in answers} == {(other.json()["run_id"], session_id)}
    for answer in answers:
        *deltas, done = events_of(answer.text)
        assert {event.type for event in deltas} == {"delta"}
        assert text_of(deltas) == WHOLE == done.data["text"]
    assert await questions_in(api, session_id) == ["before", "count"]


async def test_while_it_is_answered_a_repeat_waits_for_the_same_reply(
    api: httpx.AsyncClient, model: ModelServer, said: asyncio.Event
) -> None:
    first = asyncio.create_task(ask(api, "/chat"))
    await until(lambda: len(model.requests) == 1)
    repeats = [asyncio.create_task(ask(api, "/chat")) for _ in range(3)]
    said.set()
    answers = [await first, *[await repeat for repeat in repeats]]
    assert [is_replay(answer) for answer in answers] == [False, True, True, True]
    assert {answer.content for answer in answers} == {answers[0].content}
    assert answers[0].json()["reply"] == WHOLE
    assert len({named(answer) for answer in answers}) == 1


@BOTH
async def test_another_question_under_the_same_key_is_refused_and_not_kept(
    api: httpx.AsyncClient, path: str
) -> None:
    first = await ask(api, path)
    session_id = named(first)[1]
    for answer in (await ask(api, path, "else"), await ask(api, path, session_id=session_id)):
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    assert await questions_in(api, session_id) == ["count"]


async def test_the_same_key_of_a_colleague_is_another_question(
    api: httpx.AsyncClient, app_kit: StateKit, me: Person
) -> None:
    colleague = await new_person(app_kit, role="shipper", tenant_id=me.account.tenant_id)
    mine = await ask(api, "/chat")
    theirs = await ask(api, "/chat", headers=colleague.headers)
    assert not is_replay(theirs)
    assert named(theirs) != named(mine)


@BOTH
@pytest.mark.settings(limit_chat="2/hour")
async def test_a_repeat_costs_no_limit_and_works_when_it_is_used_up(
    api: httpx.AsyncClient, path: str
) -> None:
    first = await ask(api, path)
    for _ in range(5):
        assert is_replay(await ask(api, path))
    assert (await ask(api, path, headers={"Idempotency-Key": "k-2"})).status_code == 200
    refused = await ask(api, path, headers={"Idempotency-Key": "k-3"})
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert named(await ask(api, path)) == named(first)


@BOTH
async def test_a_question_whose_conversation_was_deleted_is_gone_and_is_not_asked_anew(
    api: httpx.AsyncClient, path: str
) -> None:
    first = await ask(api, path)
    assert (await api.delete(f"/chat/{named(first)[1]}")).status_code == 204
    again = await ask(api, path)
    assert (again.status_code, again.json()["code"]) == (404, "not_found")
    assert (await api.get("/chat/sessions")).json()["items"] == []


async def test_a_repeat_of_a_question_that_failed_is_told_of_the_same_failure(
    api: httpx.AsyncClient, model: ModelServer
) -> None:
    model.script = models.answering(400)
    first = await ask(api, "/chat")
    model.script = models.counting(1)
    again = await ask(api, "/chat")
    assert (first.status_code, first.json()["code"]) == (502, "model_failed")
    assert (again.status_code, again.json()["code"]) == (502, "model_failed")
    assert is_replay(again)
    assert again.headers["x-run-id"] == first.headers["x-run-id"]


async def test_a_question_that_was_refused_is_asked_anew(api: httpx.AsyncClient) -> None:
    unknown = "chat_" + "a" * 22
    for _ in range(2):
        refused = await ask(api, "/chat", session_id=unknown)
        assert (refused.status_code, refused.json()["code"]) == (404, "not_found")
    assert (await ask(api, "/chat")).status_code == 200


@BOTH
async def test_a_replica_that_died_between_keeping_the_question_and_answering_is_followed_by_the_repeat(
    api: httpx.AsyncClient, app_kit: StateKit, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    def die(*_: object) -> None:
        raise RuntimeError("the process is gone")

    with monkeypatch.context() as patch:
        patch.setattr(Runs, "_spawn", die)
        assert (await ask(api, path)).status_code == 500
    over = {"run.owner": "dead", "run.lease_ends_at": datetime.now(UTC) - timedelta(hours=1)}
    await app_kit.mongo.collection("conversations").update_one({}, {"$set": over})
    again = await ask(api, path)
    assert is_replay(again)
    assert await questions_in(api, named(again)[1]) == ["count"]
    text = again.json()["reply"] if path == "/chat" else events_of(again.text)[-1].data["text"]
    assert text == "".join(models.word(number) for number in range(1, 6))


async def test_without_a_key_every_question_is_one_and_no_key_is_kept(
    api: httpx.AsyncClient, app_kit: StateKit
) -> None:
    answers = [await api.post("/chat", json={"message": "count"}) for _ in range(2)]
    assert len({named(answer) for answer in answers}) == 2
    assert await app_kit.mongo.collection("idempotency_keys").count_documents({}) == 0


@pytest.mark.settings(limit_standard="1000000/minute", limit_chat="1000000/minute")
async def test_twenty_twins_through_two_replicas_are_one_question_and_all_get_its_answer(
    kit: StateKit, replicas: list[str]
) -> None:
    person = await new_person(kit, role="shipper")
    async with contextlib.AsyncExitStack() as stack:
        doors = [
            await stack.enter_async_context(
                httpx.AsyncClient(base_url=f"{url}/api/v1", headers=person.headers, timeout=30)
            )
            for url in replicas
        ]
        before = (await doors[0].post("/chat", json={"message": "before"})).json()
        for number, (path, session_id) in enumerate(
            [(path, known) for path in ("/chat", "/chat/stream") for known in (None, before["session_id"])]
        ):
            key = {"Idempotency-Key": f"race-{number}"}
            message = f"question {number}"
            answers = await asyncio.gather(
                *(ask(doors[n % 2], path, message, session_id, headers=key) for n in range(20))
            )
            flying = [answer for answer in answers if answer.status_code != 200]
            assert {answer.json()["code"] for answer in flying} <= {"idempotency_in_flight"}
            settled = [answer for answer in answers if answer.status_code == 200]
            settled += [await ask(door, path, message, session_id, headers=key) for door in doors]
            assert sum(not is_replay(answer) for answer in settled) == 1
            ((_, asked_in),) = {named(answer) for answer in settled}
            if path == "/chat":
                assert len({answer.content for answer in settled}) == 1
            else:
                ends = [events_of(answer.text)[-1] for answer in settled]
                assert all(end == ends[0] and end.type == "done" for end in ends)
            asked = await questions_in(doors[0], asked_in)
            assert asked.count(message) == 1
        assert len((await doors[0].get("/chat/sessions")).json()["items"]) == 3
