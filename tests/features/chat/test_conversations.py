"""Conversations over HTTP, answered by the built-in assistant."""

import asyncio
from typing import Any

import httpx
import pytest

from app.state.kit import StateKit
from tests.features.chat.sse import events_of, text_of
from tests.state.people import new_person


async def ask(api: httpx.AsyncClient, message: str, session_id: str | None = None) -> dict[str, Any]:
    answer = await api.post("/chat", json={"message": message, "session_id": session_id})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def history(api: httpx.AsyncClient, session_id: str, **query: Any) -> dict[str, Any]:
    answer = await api.get(f"/chat/history/{session_id}", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_question_gets_an_answer_and_both_are_in_the_history(api: httpx.AsyncClient) -> None:
    reply = await ask(api, "What can you do?")
    assert "no language model" in reply["reply"]
    page = await history(api, reply["session_id"])
    assert [(item["role"], item["content"]) for item in page["items"]] == [
        ("user", "What can you do?"),
        ("assistant", reply["reply"]),
    ]
    assert page["items"][1]["id"] == reply["message_id"]
    assert page["items"][1]["created_at"] == reply["created_at"]
    assert (page["session_id"], page["next_cursor"]) == (reply["session_id"], None)


async def test_turns_follow_each_other_and_pages_are_newest_first_and_ascending_inside(
    api: httpx.AsyncClient,
) -> None:
    session_id = (await ask(api, "question 0"))["session_id"]
    for number in range(1, 6):
        assert (await ask(api, f"question {number}", session_id))["session_id"] == session_id
    seen, cursor = [], None
    while True:
        page = await history(api, session_id, limit=5, **({"cursor": cursor} if cursor else {}))
        seen = [*page["items"], *seen]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert [item["content"] for item in seen if item["role"] == "user"] == [f"question {n}" for n in range(6)]
    assert [item["role"] for item in seen] == ["user", "assistant"] * 6


async def test_a_stream_brings_deltas_that_make_up_the_stored_answer_and_then_done(
    api: httpx.AsyncClient,
) -> None:
    answer = await api.post("/chat/stream", json={"message": "help"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = events_of(answer.text)
    assert {event.type for event in events[:-1]} == {"delta"}
    assert events[-1].type == "done"
    assert text_of(events[:-1]) == events[-1].data["text"]
    stored = (await history(api, answer.headers["x-session-id"]))["items"][1]
    assert (stored["id"], stored["content"]) == (events[-1].data["message_id"], events[-1].data["text"])


async def test_an_answer_that_is_over_can_be_followed_again_from_any_event(api: httpx.AsyncClient) -> None:
    answer = await api.post("/chat/stream", json={"message": "help"})
    events = events_of(answer.text)
    path = f"/chat/runs/{answer.headers['x-run-id']}/stream"
    assert events_of((await api.get(path)).text) == events
    again = await api.get(path, headers={"Last-Event-ID": events[0].id})
    assert events_of(again.text) == events[1:]
    unknown = events_of((await api.get(path, headers={"Last-Event-ID": "nonsense"})).text)
    assert unknown[0].type == "snapshot"
    assert text_of(unknown[:-1]) == events[-1].data["text"]


async def test_conversations_are_listed_newest_first_with_the_beginning_of_the_first_question(
    api: httpx.AsyncClient,
) -> None:
    first = await ask(api, "the first " + "word " * 40)
    second = await ask(api, "hello")
    page = (await api.get("/chat/sessions")).json()
    assert [item["id"] for item in page["items"]] == [second["session_id"], first["session_id"]]
    assert page["items"][0]["title"] == "hello"
    assert len(page["items"][1]["title"]) <= 60
    assert page["items"][0]["run_id"] is None


async def test_a_deleted_conversation_leaves_nothing(api: httpx.AsyncClient, app_kit: StateKit) -> None:
    reply = await api.post("/chat/stream", json={"message": "hello"})
    session_id, run_id = reply.headers["x-session-id"], reply.headers["x-run-id"]
    assert (await api.delete(f"/chat/{session_id}")).status_code == 204
    assert (await api.delete(f"/chat/{session_id}")).status_code == 404
    assert (await api.get(f"/chat/history/{session_id}")).status_code == 404
    assert (await api.get(f"/chat/runs/{run_id}/stream")).status_code == 404
    assert (await api.get("/chat/sessions")).json()["items"] == []
    answer = await api.post("/chat", json={"message": "hello", "session_id": session_id})
    assert answer.status_code == 404
    assert await app_kit.mongo.collection("messages").count_documents({}) == 0


@pytest.mark.parametrize("method", ["history", "delete", "ask", "run", "stop"])
async def test_what_belongs_to_somebody_else_does_not_exist_even_for_an_admin_of_the_tenant(
    api: httpx.AsyncClient, app_kit: StateKit, me: Any, method: str
) -> None:
    mine = await api.post("/chat/stream", json={"message": "hello"})
    session_id, run_id = mine.headers["x-session-id"], mine.headers["x-run-id"]
    admin = await new_person(app_kit, role="admin", tenant_id=me.account.tenant_id)
    answer = await {
        "history": lambda: api.get(f"/chat/history/{session_id}", headers=admin.headers),
        "delete": lambda: api.delete(f"/chat/{session_id}", headers=admin.headers),
        "ask": lambda: api.post(
            "/chat", json={"message": "hi", "session_id": session_id}, headers=admin.headers
        ),
        "run": lambda: api.get(f"/chat/runs/{run_id}/stream", headers=admin.headers),
        "stop": lambda: api.post(f"/chat/runs/{run_id}/stop", headers=admin.headers),
    }[method]()
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("path", ["/chat", "/chat/stream"])
@pytest.mark.parametrize(
    "body",
    [{}, {"message": ""}, {"message": "   "}, {"message": "x" * 8001}, {"message": "x", "role": "system"}],
)
async def test_a_message_has_one_to_8000_characters_and_nothing_else(
    api: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    answer = await api.post(path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    assert (await api.get("/chat/sessions")).json()["items"] == []


@pytest.mark.settings(limit_chat="3/minute")
async def test_questions_are_limited_a_user_by_both_routes_together(api: httpx.AsyncClient) -> None:
    for path in ("/chat", "/chat/stream", "/chat"):
        assert (await api.post(path, json={"message": "hello"})).status_code == 200
    answer = await api.post("/chat/stream", json={"message": "hello"})
    assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
    assert (await api.get("/chat/sessions")).status_code == 200


async def test_of_many_questions_at_once_in_one_conversation_each_is_answered_or_refused(
    api: httpx.AsyncClient,
) -> None:
    session_id = (await ask(api, "hello"))["session_id"]
    answers = await asyncio.gather(
        *(api.post("/chat", json={"message": f"q{n}", "session_id": session_id}) for n in range(10))
    )
    assert {answer.status_code for answer in answers} <= {200, 409}
    refused = [answer.json() for answer in answers if answer.status_code == 409]
    assert all(row["code"] == "run_in_progress" and row["run_id"] for row in refused)
    items = (await history(api, session_id, limit=100))["items"]
    assert [item["role"] for item in items] == ["user", "assistant"] * (1 + 10 - len(refused))
