"""The sessions routes, one rule at a time, in one process on the real stores."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.core.ids import new_id
from app.state.kit import StateKit
from app.state.session_documents import Owner
from tests.engines import MongoEngine, RedisEngine
from tests.features.answers import problem
from tests.state.people import Person, log_in, new_account, new_person
from tests.waiting import until

FIELDS = ["id", "type", "data", "version", "created_at", "last_accessed_at", "expires_at"]


async def make(api: httpx.AsyncClient, data: Any = None, **fields: Any) -> dict[str, Any]:
    body = {"type": "cart", "data": {} if data is None else data, **fields}
    answer = await api.post("/sessions", json=body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def read(api: httpx.AsyncClient, session_id: str) -> dict[str, Any]:
    answer = await api.get(f"/sessions/{session_id}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_session_is_made_read_and_described(api: httpx.AsyncClient) -> None:
    answer = await api.post("/sessions", json={"type": "cart", "data": {" a ": " b ", "n": [1, 2.5, None]}})
    assert answer.status_code == 201
    made = answer.json()
    assert list(made) == FIELDS
    assert made["data"] == {" a ": " b ", "n": [1, 2.5, None]}
    assert answer.headers["etag"] == '"1"'
    assert answer.headers["location"] == f"/api/v1/sessions/{made['id']}"
    for _ in range(3):
        found = await api.get(f"/sessions/{made['id']}")
        assert (found.status_code, found.headers["etag"]) == (200, '"1"')
        assert found.headers["content-type"] == "application/json"
        assert found.json() == made


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"type": "cart"},
        {"data": {}},
        {"type": "basket", "data": {}},
        {"type": "cart", "data": []},
        {"type": "cart", "data": None},
        {"type": "cart", "data": {}, "ttl_seconds": 9},
        {"type": "cart", "data": {}, "ttl_seconds": 366 * 86400 + 1},
        {"type": "cart", "data": {}, "ttl_seconds": "60"},
        {"type": "cart", "data": {}, "ttl_seconds": 60.5},
        {"type": "cart", "data": {}, "user_id": "usr_other"},
        {"type": "booking_draft", "data": {}},
    ],
)
async def test_a_body_that_breaks_a_rule_is_refused(api: httpx.AsyncClient, body: dict[str, Any]) -> None:
    assert problem(await api.post("/sessions", json=body)) == (422, "validation_failed")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
@pytest.mark.parametrize(
    "data",
    [
        '{"a": NaN}',
        '{"a": 1e999}',
        '{"a": "\\ud800"}',
        '{"$set": 1}',
        '{"a": 1, "a": 2}',
        "[" * 90 + "]" * 90,
    ],
)
async def test_json_that_is_not_strict_is_refused(api: httpx.AsyncClient, method: str, data: str) -> None:
    made = await make(api)
    path = "/sessions" if method == "POST" else f"/sessions/{made['id']}"
    kind = '"type": "cart", ' if method == "POST" else ""
    body = f'{{{kind}"data": {data}}}'.encode()
    answer = await api.request(method, path, content=body, headers={"Content-Type": "application/json"})
    assert problem(answer) == (422, "validation_failed")


async def test_put_replaces_and_patch_merges(api: httpx.AsyncClient) -> None:
    made = await make(api, {"a": 1, "b": {"c": 2, "d": 3}})
    path = f"/sessions/{made['id']}"
    patched = await api.patch(path, json={"data": {"a": None, "b": {"c": None, "e": 4}, "f": [1]}})
    assert patched.json()["data"] == {"b": {"d": 3, "e": 4}, "f": [1]}
    assert (patched.json()["version"], patched.headers["etag"]) == (2, '"2"')
    put = await api.put(path, json={"data": {"only": "this"}})
    assert put.json()["data"] == {"only": "this"}
    assert list(put.json()) == FIELDS
    assert await read(api, made["id"]) == put.json()
    for body in ({"data": None}, {"data": [1]}, {}, {"data": {}, "type": "cart"}):
        assert problem(await api.patch(path, json=body)) == (422, "validation_failed")


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_a_write_may_name_its_version_in_the_body_or_in_if_match(
    api: httpx.AsyncClient, method: str
) -> None:
    made = await make(api)
    path = f"/sessions/{made['id']}"

    async def write(version: int | None = None, if_match: str | None = None) -> httpx.Response:
        body = {"data": {"n": 1}} if version is None else {"data": {"n": 1}, "version": version}
        headers = {} if if_match is None else {"If-Match": if_match}
        return await api.request(method, path, json=body, headers=headers)

    assert (await write(version=1)).json()["version"] == 2
    assert (await write(if_match='"2"')).json()["version"] == 3
    assert (await write(version=3, if_match='"3"')).json()["version"] == 4
    assert (await write(if_match="*")).json()["version"] == 5
    late = await write(version=1)
    assert problem(late) == (409, "version_conflict")
    assert (late.json()["current_version"], late.headers["etag"]) == (5, '"5"')
    assert problem(await write(if_match='"1"')) == (412, "precondition_failed")
    assert problem(await write(if_match='"1"', version=1)) == (412, "precondition_failed")
    assert problem(await write(if_match='"5"', version=1)) == (409, "version_conflict")
    assert problem(await write(version=0)) == (422, "validation_failed")
    assert (await read(api, made["id"]))["version"] == 5


async def test_a_deleted_session_is_not_found_by_anything(api: httpx.AsyncClient) -> None:
    made = await make(api)
    path = f"/sessions/{made['id']}"
    await read(api, made["id"])
    deleted = await api.delete(path)
    assert (deleted.status_code, deleted.content) == (204, b"")
    for answer in (
        await api.get(path),
        await api.put(path, json={"data": {}}),
        await api.patch(path, json={"data": {}}),
        await api.delete(path),
    ):
        assert problem(answer) == (404, "not_found")


async def test_what_is_somebody_elses_and_what_never_was_get_the_same_answer(
    api: httpx.AsyncClient, app_kit: StateKit, me: Person
) -> None:
    made = await make(api, {"secret": 1})
    await read(api, made["id"])
    admin = await new_person(app_kit, role="admin", tenant_id=me.account.tenant_id)
    stranger = await new_person(app_kit)
    ids = [made["id"], new_id("ses"), "ses_1", "x" * 300, "%00", "a%2Fb", "..%2f", "é"]
    for person in (admin, stranger):
        for session_id in ids:
            path = f"/sessions/{session_id}"
            for answer in (
                await api.get(path, headers=person.headers),
                await api.put(path, json={"data": {}}, headers=person.headers),
                await api.patch(path, json={"data": {}}, headers=person.headers),
                await api.delete(path, headers=person.headers),
            ):
                assert problem(answer) == (404, "not_found"), (person, session_id)
                body = answer.json()
                assert set(body) == {"type", "title", "status", "detail", "code", "request_id"}
                assert body["detail"] == "There is nothing here, or nothing you may see."
        assert (await api.get("/sessions", headers=person.headers)).json()["items"] == []
    assert (await read(api, made["id"]))["version"] == 1


async def test_nobody_is_told_anything_without_a_good_credential(api: httpx.AsyncClient) -> None:
    made = await make(api)
    for headers in ({"Authorization": "Bearer x"}, {"Authorization": "", "X-API-Key": "y"}):
        for method, path in (
            ("GET", "/sessions"),
            ("POST", "/sessions"),
            ("GET", f"/sessions/{made['id']}"),
            ("GET", "/sessions/impossible"),
            ("PUT", "/sessions/impossible"),
            ("PATCH", f"/sessions/{made['id']}"),
            ("DELETE", f"/sessions/{made['id']}"),
        ):
            answer = await api.request(method, path, headers=headers)
            assert problem(answer) == (401, "unauthenticated"), (method, path)


async def test_drafts_are_read_and_listed_here_and_written_elsewhere(
    api: httpx.AsyncClient, app_kit: StateKit, me: Person
) -> None:
    owner = Owner(me.account.tenant_id, me.account.id)
    draft = await app_kit.sessions.create(owner, "booking_draft", {"step": 1})
    path = f"/sessions/{draft.id}"
    assert (await read(api, draft.id))["data"] == {"step": 1}
    (listed,) = (await api.get("/sessions", params={"type": "booking_draft"})).json()["items"]
    assert listed["id"] == draft.id
    for answer in (
        await api.put(path, json={"data": {}}),
        await api.patch(path, json={"data": {}}),
        await api.delete(path),
        await api.post("/sessions", json={"type": "booking_draft", "data": {}}),
    ):
        assert problem(answer) == (422, "validation_failed")
        assert "/bookings/drafts" in answer.json()["errors"][0]["message"]
    assert (await read(api, draft.id))["version"] == 1


async def test_preferences_are_made_once_and_then_replaced(api: httpx.AsyncClient) -> None:
    first = await api.post("/sessions", json={"type": "preferences", "data": {"theme": "dark"}})
    again = await api.post("/sessions", json={"type": "preferences", "data": {"lang": "de"}})
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["id"] == first.json()["id"]
    assert again.json()["data"] == {"lang": "de"}
    assert again.headers["etag"] == '"2"'


async def test_too_much_data_is_413_and_changes_nothing(api: httpx.AsyncClient) -> None:
    half = {"a": "x" * 40_000}
    made = await make(api, half)
    path = f"/sessions/{made['id']}"
    for answer in (
        await api.patch(path, json={"data": {"b": "y" * 40_000}}),
        await api.put(path, json={"data": {"a": "x" * 70_000}}),
        await api.post("/sessions", json={"type": "cart", "data": {"a": "x" * 70_000}}),
    ):
        assert problem(answer) == (413, "payload_too_large")
    assert await read(api, made["id"]) == made


async def test_the_hundred_and_first_session_of_a_type_is_refused(api: httpx.AsyncClient) -> None:
    for _ in range(100):
        await make(api)
    answer = await api.post("/sessions", json={"type": "cart", "data": {}})
    assert problem(answer) == (422, "session_limit")
    await make(api, type="temp_data")


async def test_the_list_is_paged_filtered_and_shows_whole_sessions(api: httpx.AsyncClient) -> None:
    made = [await make(api, {"n": n}, type="cart" if n % 2 else "temp_data") for n in range(9)]
    seen: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await api.get("/sessions", params={"limit": 4, **cursor})).json()
        seen += page["items"]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert sorted(seen, key=lambda item: item["data"]["n"]) == made
    assert [item["created_at"] for item in seen] == sorted(
        (item["created_at"] for item in made), reverse=True
    )
    carts = (await api.get("/sessions", params={"type": "cart"})).json()
    assert {item["type"] for item in carts["items"]} == {"cart"}
    assert (len(carts["items"]), carts["next_cursor"]) == (4, None)
    for query in ({"type": "basket"}, {"limit": 0}, {"limit": 101}, {"cursor": "nonsense"}):
        assert problem(await api.get("/sessions", params=query)) == (422, "validation_failed")


async def test_reading_extends_unless_told_not_to(api: httpx.AsyncClient) -> None:
    made = await make(api, ttl_seconds=20)
    path = f"/sessions/{made['id']}"
    await read(api, made["id"])
    async with asyncio.timeout(20):
        while (await api.get(path, params={"extend": "true"})).json()["expires_at"] == made["expires_at"]:
            left_alone = await api.get(path, params={"extend": "false"})
            assert left_alone.json()["expires_at"] == made["expires_at"]
            await asyncio.sleep(0.1)
    extended = await api.get(path, params={"extend": "false"})
    assert extended.json()["expires_at"] > made["expires_at"]
    assert extended.json()["version"] == 1
    assert problem(await api.get(path, params={"extend": "perhaps"})) == (422, "validation_failed")


async def test_a_read_that_must_not_extend_leaves_that_to_the_next_one(
    api: httpx.AsyncClient, app_kit: StateKit
) -> None:
    made = await make(api, ttl_seconds=10)
    path = f"/sessions/{made['id']}"
    await read(api, made["id"])
    await asyncio.sleep(1.1)  # a tenth of its life: only time can spend it
    for extend in ("false", "0", "off", "False"):
        answer = await api.get(path, params={"extend": extend})
        assert answer.json()["expires_at"] == made["expires_at"]
    assert (await read(api, made["id"]))["expires_at"] > made["expires_at"]


async def test_an_api_key_works_on_its_creators_sessions(
    api: httpx.AsyncClient, app_kit: StateKit, me: Person
) -> None:
    made = await make(api)
    _, key = await app_kit.api_keys.create(
        tenant_id=me.account.tenant_id, user_id=me.account.id, name="program", tier="standard"
    )
    del api.headers["Authorization"]
    answer = await api.get(f"/sessions/{made['id']}", headers={"X-API-Key": key})
    assert answer.json() == made


async def test_two_logins_of_one_user_share_their_sessions(
    api: httpx.AsyncClient, app_kit: StateKit, me: Person
) -> None:
    made = await make(api)
    elsewhere = await log_in(app_kit, me.account)
    assert (await api.get(f"/sessions/{made['id']}", headers=elsewhere.headers)).json() == made


async def test_a_user_of_another_tenant_with_the_same_session_id_in_hand_sees_nothing(
    api: httpx.AsyncClient, app_kit: StateKit
) -> None:
    made = await make(api)
    await read(api, made["id"])
    account = await new_account(app_kit)
    other = await log_in(app_kit, account)
    assert problem(await api.get(f"/sessions/{made['id']}", headers=other.headers)) == (404, "not_found")


async def test_without_redis_everything_works_and_without_mongodb_hot_sessions_are_read(
    api: httpx.AsyncClient, app_kit: StateKit, redis_engine: RedisEngine, mongo_engine: MongoEngine
) -> None:
    made = await make(api)
    redis_engine.kill()
    await until(lambda: app_kit.redis.health.status == "fail")
    patched = await api.patch(f"/sessions/{made['id']}", json={"data": {"n": 1}})
    assert (patched.status_code, (await read(api, made["id"]))["data"]) == (200, {"n": 1})
    await asyncio.to_thread(redis_engine.start)
    await until(lambda: app_kit.redis.health.status == "pass" and not app_kit.redis._breaker.is_open)
    hot = await until_hot(api, app_kit, made["id"])
    mongo_engine.freeze()
    for _ in range(5):
        assert await read(api, made["id"]) == hot
    refused = await api.patch(f"/sessions/{made['id']}", json={"data": {}})
    assert problem(refused) == (503, "store_unavailable")
    assert "retry-after" in refused.headers


async def until_hot(api: httpx.AsyncClient, kit: StateKit, session_id: str) -> dict[str, Any]:
    """Read until the answer came from the hot copy."""
    async with asyncio.timeout(20):
        while True:
            found = await read(api, session_id)
            before = json.dumps(await kit.hot.stats())
            await read(api, session_id)
            await kit.hot.beat()
            after = await kit.hot.stats()
            if after.get("session", {}).get("hit", 0) > json.loads(before).get("session", {}).get("hit", 0):
                return found


async def test_the_document_describes_every_route(app: FastAPI) -> None:
    paths = app.openapi()["paths"]
    assert set(paths["/api/v1/sessions"]) == {"get", "post"}
    assert set(paths["/api/v1/sessions/{session_id}"]) == {"get", "put", "patch", "delete"}
    for operations in (paths["/api/v1/sessions"], paths["/api/v1/sessions/{session_id}"]):
        for operation in operations.values():
            assert operation["summary"]
            assert {"4XX", "5XX"} <= set(operation["responses"])
    posted = paths["/api/v1/sessions"]["post"]["responses"]
    for status in ("200", "201"):
        assert posted[status]["content"]["application/json"]["schema"]["$ref"].endswith("/SessionOut")
    assert app.openapi()["components"]["schemas"]["SessionOut"]["examples"]
