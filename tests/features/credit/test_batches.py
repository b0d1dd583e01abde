"""One decision about many applications: each by its own version, and no half of any."""

from typing import Any

import httpx
import pytest

from app.core.ids import new_id
from app.features.credit import batch
from app.state.kit import StateKit
from tests.features.answers import problem, wrong_fields
from tests.features.credit.applications import application, apply, apply_until, decide, history
from tests.state.people import Person, new_person

PATH = "/applications/batch-update"


MALFORMED: list[tuple[dict[str, Any], set[str]]] = [
    ({"application_ids": []}, {"application_ids"}),
    ({"application_ids": ["app_a", "app_a"]}, {"application_ids"}),
    ({"application_ids": [f"app_{n}" for n in range(101)]}, {"application_ids"}),
    ({"application_ids": ["app_a", 7]}, {"application_ids.1"}),
    ({"application_ids": "app_a"}, {"application_ids"}),
    ({"versions": {"app_a": 0}}, {"versions.app_a"}),
    ({"versions": {"app_b": 1}}, {"body"}),
    ({"versions": [1]}, {"versions"}),
    ({"status": "undecided"}, {"status"}),
    ({"note": ""}, {"note"}),
    ({"version": 1}, {"version"}),
]


async def send(
    api: httpx.AsyncClient, person: Person, ids: list[str], status: str, **body: Any
) -> httpx.Response:
    headers = {**person.headers, **body.pop("headers", {})}
    return await api.post(PATH, json={"application_ids": ids, "status": status, **body}, headers=headers)


async def test_each_is_decided_by_its_own_version_and_the_answer_says_which(
    api: httpx.AsyncClient, underwriter: Person, app_kit: StateKit
) -> None:
    fresh, moved, decided = [
        await apply_until(api, underwriter, status) for status in ("pending", "in_review", "approved")
    ]
    stranger = await new_person(app_kit, role="shipper")
    foreign = (await api.post("/applications", json=application(), headers=stranger.headers)).json()
    nowhere = new_id("app")
    ids = [decided["id"], nowhere, moved["id"], foreign["id"], fresh["id"]]
    answer = await send(
        api, underwriter, ids, "in_review", versions={moved["id"]: 1, fresh["id"]: 1}, note="Monday's"
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["results"] == [
        {"id": decided["id"], "result": "invalid_transition", "version": 3},
        {"id": nowhere, "result": "not_found", "version": None},
        {"id": moved["id"], "result": "conflict", "version": 2},
        {"id": foreign["id"], "result": "not_found", "version": None},
        {"id": fresh["id"], "result": "updated", "version": 2},
    ]
    assert (await api.get(f"/applications/{fresh['id']}")).json()["status"] == "in_review"
    last = (await history(api, fresh["id"]))[-1]
    assert (last["status"], last["version"], last["note"]) == ("in_review", 2, "Monday's")
    assert last["actor"]["user_id"] == underwriter.account.id
    for unchanged in (moved, decided):
        assert (await api.get(f"/applications/{unchanged['id']}")).json() == unchanged
        assert len(await history(api, unchanged["id"])) == unchanged["version"]


async def test_a_note_is_added_to_many(api: httpx.AsyncClient, underwriter: Person) -> None:
    made = [await apply(api) for _ in range(3)]
    ids = [each["id"] for each in made]
    answer = await send(api, underwriter, ids, "pending", note="Waiting for the register")
    assert [(row["result"], row["version"]) for row in answer.json()["results"]] == [("updated", 2)] * 3
    bare = await send(api, underwriter, ids, "pending")
    assert [row["result"] for row in bare.json()["results"]] == ["invalid_transition"] * 3


async def test_a_batch_that_is_malformed_decides_nothing(api: httpx.AsyncClient, underwriter: Person) -> None:
    for body, fields in MALFORMED:
        whole = {"application_ids": ["app_a"], "status": "in_review", **body}
        assert wrong_fields(await api.post(PATH, json=whole, headers=underwriter.headers)) == fields


async def test_others_may_not_send_one(api: httpx.AsyncClient, me: Person) -> None:
    made = await apply(api)
    assert problem(await send(api, me, [made["id"]], "in_review")) == (403, "forbidden")


async def test_a_batch_with_a_key_is_answered_as_it_was_the_first_time(
    api: httpx.AsyncClient, underwriter: Person
) -> None:
    made = [await apply(api) for _ in range(3)]
    ids, key = [each["id"] for each in made], {"Idempotency-Key": "monday"}
    first = await send(api, underwriter, ids, "in_review", headers=key)
    await decide(api, underwriter, {**made[0], "version": 2}, "approved")
    again = await send(api, underwriter, ids, "in_review", headers=key)
    assert (again.status_code, again.content) == (200, first.content)
    assert again.headers["idempotent-replayed"] == "true"
    other = await send(api, underwriter, ids[:1], "in_review", headers=key)
    assert problem(other) == (422, "idempotency_key_reused")
    assert [len(await history(api, each)) for each in ids] == [3, 2, 2]


@pytest.mark.parametrize("named", [True, False])
async def test_a_batch_with_a_key_that_died_half_way_is_finished_by_its_repetition(
    api: httpx.AsyncClient, underwriter: Person, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    made = [await apply(api) for _ in range(6)]
    ids, key = [each["id"] for each in made], {"Idempotency-Key": "monday"}
    body = {"note": "Seen", **({"versions": dict.fromkeys(ids, 1)} if named else {})}
    whole = batch.ApplicationStore.change_many

    async def half(store: Any, scope: Any, changes: Any) -> bool:
        await whole(store, scope, changes[:3])
        raise ConnectionResetError("the process dies here")

    with monkeypatch.context() as patched:
        patched.setattr(batch.ApplicationStore, "change_many", half)
        died = await send(api, underwriter, ids, "pending", headers=key, **body)
        assert died.status_code == 500
    await decide(api, underwriter, {**made[0], "version": 2}, "in_review")
    again = await send(api, underwriter, ids, "pending", headers=key, **body)
    results = [(row["result"], row["version"]) for row in again.json()["results"]]
    assert results == [("updated", 2)] * 6
    assert [[event["note"] for event in await history(api, each)].count("Seen") for each in ids] == [1] * 6
