"""`Idempotency-Key` on the routes that make something, through one replica and through several.

The numbers are those of the cases in `app.state.idempotency`.
"""

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest

from app.state import idempotency
from app.state.kit import StateKit
from tests.engines import RedisEngine
from tests.state.people import Person, log_in, new_account, new_person

SESSION = {"type": "cart", "data": {"b": 1, "a": [1, 2.5, None]}}
PREFERENCES = {"type": "preferences", "data": {"theme": "dark"}}
USER = {"email": "grace@example.com", "name": "Grace", "role": "driver", "password": "correct horse battery"}
ROUTES: list[tuple[str, dict[str, Any]]] = [("sessions", SESSION), ("sessions", PREFERENCES), ("users", USER)]


@pytest.fixture
async def me(app_kit: StateKit) -> Person:
    return await new_person(app_kit, role="admin")


async def post(
    api: httpx.AsyncClient, path: str, body: dict[str, Any], *, key: str = "k-1", **more: Any
) -> httpx.Response:
    headers = {"Idempotency-Key": key, **more.pop("headers", {})}
    return await api.post(f"/{path.lstrip('/')}", json=body, headers=headers, **more)


def same_answer(first: httpx.Response, second: httpx.Response) -> bool:
    """Say whether `second` is a replay of `first`."""
    kept = ("location", "etag", "content-type")
    return (
        (first.status_code, first.content) == (second.status_code, second.content)
        and [first.headers[name] for name in kept] == [second.headers[name] for name in kept]
        and "idempotent-replayed" not in first.headers
        and second.headers.get("idempotent-replayed") == "true"
    )


async def count(kit: StateKit, path: str, me: Person) -> int:
    """Return how many of these the person's tenant has."""
    return await kit.mongo.collection(path).count_documents({"tenant_id": me.account.tenant_id})


@pytest.mark.parametrize(("path", "body"), ROUTES)
async def test_1_the_first_answer_comes_back_and_nothing_else_happens(
    api: httpx.AsyncClient, app_kit: StateKit, me: Person, path: str, body: dict[str, Any]
) -> None:
    before = await count(app_kit, path, me)
    first = await post(api, path, body)
    assert first.status_code == 201
    reordered = dict(reversed(body.items()))
    for again in (body, reordered, body):
        assert same_answer(first, await post(api, path, again))
    assert await count(app_kit, path, me) == before + 1


async def test_1_preferences_that_were_there_are_replaced_once(api: httpx.AsyncClient) -> None:
    await api.post("/sessions", json=PREFERENCES)
    light = {"type": "preferences", "data": {"theme": "light"}}
    first = await post(api, "sessions", light)
    assert (first.status_code, first.json()["version"]) == (200, 2)
    await api.post("/sessions", json=PREFERENCES)
    assert same_answer(first, await post(api, "sessions", light))
    now = await api.get(f"/sessions/{first.json()['id']}")
    assert now.json()["data"] == PREFERENCES["data"], "the late copy of a request undid a newer one"


@pytest.mark.parametrize(("path", "body"), ROUTES)
async def test_2_another_body_path_or_query_is_another_request(
    api: httpx.AsyncClient, app_kit: StateKit, me: Person, path: str, body: dict[str, Any]
) -> None:
    await post(api, path, body)
    before = await count(app_kit, path, me)
    changed = {**body, "name": "Ada"} if path == "users" else {**body, "data": {}}
    for answer in (await post(api, path, changed), await post(api, f"{path}?x=1", body)):
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    assert await count(app_kit, path, me) == before


async def test_7_the_same_key_of_others_and_on_other_routes_is_another_key(
    api: httpx.AsyncClient, app_kit: StateKit, me: Person
) -> None:
    colleague = await new_person(app_kit, role="admin", tenant_id=me.account.tenant_id)
    stranger = await new_person(app_kit, role="admin")
    ids = set()
    for person in (me, colleague, stranger):
        made = await post(api, "sessions", SESSION, headers=person.headers)
        assert made.status_code == 201
        ids.add(made.json()["id"])
    assert len(ids) == 3
    assert (await post(api, "users", USER)).status_code == 201


async def test_8_what_was_refused_is_tried_anew(
    api: httpx.AsyncClient, app_kit: StateKit, me: Person
) -> None:
    other = await new_account(app_kit)
    taken = {**USER, "email": other.email}
    for _ in range(2):
        refused = await post(api, "users", taken)
        assert (refused.status_code, refused.json()["code"]) == (409, "email_taken")
    bad = await post(api, "users", {**USER, "role": "captain"})
    assert bad.status_code == 422
    assert (await post(api, "users", USER)).status_code == 201
    assert await count(app_kit, "users", me) == 2


@pytest.mark.settings(limit_standard="5/hour")
@pytest.mark.parametrize(("path", "body"), ROUTES)
async def test_10_replays_cost_no_limit_and_work_when_it_is_used_up(
    api: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    first = await post(api, path, body)
    assert first.headers["ratelimit"].startswith('"standard";r=4;')
    for _ in range(10):
        replay = await post(api, path, body)
        assert same_answer(first, replay)
        assert replay.headers["ratelimit"].startswith('"standard";r=4;')
    for left in (3, 2, 1, 0):
        assert (await api.get("/sessions")).headers["ratelimit"].startswith(f'"standard";r={left};')
    assert same_answer(first, await post(api, path, body))
    for answer in (
        await api.get("/sessions"),
        await post(api, path, body, key="k-2"),
        await post(api, path, {**body, "name": "else"}),
        await post(api, path, body, key="mal formed"),
        await api.post(f"/{path}", json=body),
    ):
        assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")


async def test_11_an_expired_key_makes_anew(
    api: httpx.AsyncClient, app_kit: StateKit, me: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "LIFE_S", -1)
    first, second = await post(api, "sessions", SESSION), await post(api, "sessions", SESSION)
    assert first.json()["id"] != second.json()["id"]
    assert await count(app_kit, "sessions", me) == 2
    await post(api, "users", USER)
    monkeypatch.setattr(idempotency, "LIFE_S", 60)
    anew = await post(api, "users", {**USER, "email": "other@example.com"})
    assert anew.status_code == 201


async def test_12_a_key_survives_a_wiped_redis_and_needs_none(
    api: httpx.AsyncClient, app_kit: StateKit, me: Person, redis_engine: RedisEngine
) -> None:
    first = await post(api, "sessions", SESSION)
    redis_engine.flush()
    assert same_answer(first, await post(api, "sessions", SESSION))
    redis_engine.kill()
    assert same_answer(first, await post(api, "sessions", SESSION))
    second = await post(api, "sessions", SESSION, key="k-2")
    assert second.status_code == 201
    assert same_answer(second, await post(api, "sessions", SESSION, key="k-2"))
    assert await count(app_kit, "sessions", me) == 2


async def test_14_the_first_answer_comes_back_when_what_was_made_has_changed_or_gone(
    api: httpx.AsyncClient, app_kit: StateKit, me: Person
) -> None:
    first = await post(api, "sessions", SESSION)
    path = f"/sessions/{first.json()['id']}"
    await api.patch(path, json={"data": {"more": 1}})
    assert same_answer(first, await post(api, "sessions", SESSION))
    await api.delete(path)
    assert same_answer(first, await post(api, "sessions", SESSION))
    assert await count(app_kit, "sessions", me) == 0


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "kéy", "tab\there"])
async def test_15_a_malformed_key_is_refused_and_nothing_is_made(
    api: httpx.AsyncClient, app_kit: StateKit, me: Person, key: str
) -> None:
    raw = [(b"Idempotency-Key", key.encode("latin-1")), *[(b"content-type", b"application/json")]]
    answer = await api.post("/sessions", json=SESSION, headers=raw)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    assert answer.json()["errors"][0]["field"] == "Idempotency-Key"
    assert await count(app_kit, "sessions", me) == 0


async def test_15_two_keys_are_none(api: httpx.AsyncClient) -> None:
    answer = await api.post(
        "/sessions", json=SESSION, headers=[("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    )
    assert answer.status_code == 422


async def test_the_longest_key_is_taken(api: httpx.AsyncClient) -> None:
    assert (await post(api, "sessions", SESSION, key="~" * 255)).status_code == 201


async def test_whoever_may_not_come_in_gets_no_replay(
    api: httpx.AsyncClient, app_kit: StateKit, me: Person
) -> None:
    admin = await new_account(app_kit, role="admin", tenant_id=me.account.tenant_id)
    person = await log_in(app_kit, admin)
    assert (await post(api, "users", USER, headers=person.headers)).status_code == 201
    await app_kit.accounts.change(tenant_id=admin.tenant_id, user_id=admin.id, changes={"role": "driver"})
    assert (await post(api, "users", USER, headers=person.headers)).status_code == 403
    stranger = {"Authorization": "Bearer nonsense"}
    assert (await post(api, "users", USER, headers=stranger)).status_code == 401
    assert (await post(api, "users", USER, key="", headers=stranger)).status_code == 401


async def test_a_session_of_a_keyed_post_is_read_without_its_key(api: httpx.AsyncClient) -> None:
    made = (await post(api, "sessions", SESSION)).json()
    for _ in range(2):
        assert (await api.get(f"/sessions/{made['id']}")).json() == made
    assert (await api.get("/sessions")).json()["items"] == [made]


async def test_a_hundred_keyed_sessions_and_no_more(api: httpx.AsyncClient) -> None:
    """The limit is a unique index under which a transaction may stumble."""
    cart = {"type": "cart", "data": {}}
    answers = await asyncio.gather(*(post(api, "sessions", cart, key=f"k-{n}") for n in range(104)))
    codes = [answer.status_code for answer in answers]
    retry = [n for n, code in enumerate(codes) if code == 409]
    for n in retry:
        codes[n] = (await post(api, "sessions", cart, key=f"k-{n}")).status_code
    assert (codes.count(201), codes.count(422)) == (100, 4)


@pytest.mark.replicas(3)
async def test_9_a_hundred_posts_with_one_key_over_three_replicas_have_one_effect(
    replicas: list[str], app_kit: StateKit, me: Person
) -> None:
    async with httpx.AsyncClient(headers=me.headers, timeout=30) as http:
        for number, (path, body) in enumerate(ROUTES):
            key = {"Idempotency-Key": f"k-{number}"}
            urls = [f"{replica}/api/v1/{path}" for replica in replicas]
            before = await count(app_kit, path, me)
            answers = await asyncio.gather(
                *(http.post(urls[n % 3], json=body, headers=key) for n in range(100))
            )
            settled = [answer for answer in answers if answer.status_code == 201]
            flying = [answer for answer in answers if answer.status_code != 201]
            assert {answer.json()["code"] for answer in flying} <= {"idempotency_in_flight"}
            assert all(int(answer.headers["Retry-After"]) >= 1 for answer in flying)
            (first,) = [answer for answer in settled if "idempotent-replayed" not in answer.headers]
            assert all(same_answer(first, answer) for answer in settled if answer is not first)
            for url in urls:
                assert same_answer(first, await http.post(url, json=body, headers=key))
            assert await count(app_kit, path, me) == before + 1


async def test_what_became_of_keyed_requests_is_counted(api: httpx.AsyncClient, app_kit: StateKit) -> None:
    await post(api, "sessions", SESSION)
    await post(api, "sessions", SESSION)
    await post(api, "sessions", PREFERENCES)
    exposition = app_kit.metrics.exposition().decode()
    for outcome in ("first", "replayed", "reused"):
        assert f'cargoflow_idempotent_requests_total{{outcome="{outcome}"}} 1.0' in exposition


async def test_keys_live_for_a_day(api: httpx.AsyncClient, app_kit: StateKit) -> None:
    await post(api, "sessions", SESSION)
    row = await app_kit.mongo.collection("idempotency_keys").find_one({})
    assert row is not None
    left = row["expires_at"] - app_kit.clock.now()
    assert timedelta(hours=23, minutes=59) < left <= timedelta(hours=24)
