import asyncio
from http.cookies import SimpleCookie

import httpx

from app.core.settings import Settings
from app.state.kit import StateKit, open_kit
from tests.features.auth.calls import PASSWORD, bearer, log_in, me, refresh, register
from tests.state.cached_things import Source, my_list
from tests.state.people import ensure_indexes, new_account, new_person
from tests.state.people import log_in as begin_login
from tests.waiting import held_by_one_task, until


async def test_logging_out_ends_this_login_only_and_clears_the_cookie(api: httpx.AsyncClient) -> None:
    await register(api)
    one, other = (await log_in(api)).json(), (await log_in(api)).json()
    answer = await api.post("/auth/logout", headers=bearer(one["access_token"]))
    assert answer.status_code == 204
    cookie = SimpleCookie(answer.headers["set-cookie"])["cf_refresh"]
    assert (cookie["max-age"], cookie["path"], cookie.value) == ("0", "/api/v1/auth", "")
    assert (await me(api, one["access_token"])).status_code == 401
    assert (await refresh(api, one["refresh_token"])).status_code == 401
    assert (await me(api, other["access_token"])).status_code == 200


async def test_logging_out_everywhere_ends_all_logins_but_no_api_key(api: httpx.AsyncClient) -> None:
    await register(api)
    one, other = (await log_in(api)).json(), (await log_in(api)).json()
    key = (await api.post("/api-keys", json={"name": "ERP"}, headers=bearer(one["access_token"]))).json()[
        "key"
    ]
    assert (await me(api, other["access_token"])).status_code == 200
    assert (await api.post("/auth/logout-all", headers=bearer(one["access_token"]))).status_code == 204
    for session in (one, other):
        assert (await me(api, session["access_token"])).status_code == 401
        assert (await refresh(api, session["refresh_token"])).status_code == 401
    assert (await api.get("/auth/me", headers={"X-API-Key": key})).status_code == 200
    assert (await log_in(api)).status_code == 200


async def test_whoever_logs_out_leaves_nothing_of_theirs_in_the_cache(
    api: httpx.AsyncClient, kit: StateKit
) -> None:
    await ensure_indexes(kit)
    for path in ("/auth/logout", "/auth/logout-all"):
        person, source = await new_person(kit), Source()
        owner = {"tenant_id": person.account.tenant_id, "user_id": person.account.id}
        async with asyncio.timeout(20):
            while (await kit.cache.read(my_list(**owner), source.load)).outcome != "hit":
                pass
        assert (await api.post(path, headers=person.headers)).status_code == 204
        assert (await kit.cache.read(my_list(**owner), source.load)).outcome == "miss"


async def test_whatever_ends_a_login_is_known_to_the_other_replica_with_the_answer(
    replicas: list[str], settings: Settings
) -> None:
    async with held_by_one_task(open_kit(settings)) as kit, httpx.AsyncClient(timeout=30) as http:
        await until(lambda: kit.mongo.health.status == "pass" and kit.redis.health.status == "pass")
        await ensure_indexes(kit)
        one, other = (f"{base}/api/v1" for base in replicas)
        admin = await new_person(kit, role="admin")

        async def status(base: str, headers: dict[str, str]) -> int:
            return (await http.get(f"{base}/auth/me", headers=headers)).status_code

        for _ in range(5):
            person = await new_person(kit)
            assert [await status(base, person.headers) for base in (one, other, one, other)] == [200] * 4
            assert (await http.post(f"{one}/auth/logout", headers=person.headers)).status_code == 204
            assert [await status(base, person.headers) for base in (other, one)] == [401] * 2

        account = await new_account(kit, tenant_id=admin.account.tenant_id)
        user = f"{one}/users/{account.id}"
        for path, body in (
            ("/auth/logout-all", None),
            ("/auth/logout-all", None),
            (user, {"active": False}),
        ):
            account = await kit.accounts.get(tenant_id=account.tenant_id, user_id=account.id)
            person = await begin_login(kit, account)
            assert [await status(base, person.headers) for base in (one, other, one, other)] == [200] * 4
            if body is None:
                ended = await http.post(f"{one}{path}", headers=person.headers)
            else:
                ended = await http.patch(path, json=body, headers=admin.headers)
            assert ended.status_code in {200, 204}
            assert [await status(base, person.headers) for base in (other, one)] == [401] * 2


async def test_devices_are_listed_with_the_current_one_marked(api: httpx.AsyncClient) -> None:
    await register(api)
    phone = (await log_in(api, **{"User-Agent": "Phone/1.0"})).json()
    laptop = (await log_in(api, **{"User-Agent": "x" * 500})).json()
    listed = await api.get("/auth/sessions", headers=bearer(phone["access_token"]))
    assert listed.headers["cache-control"] == "no-store"
    items = listed.json()["items"]
    assert [item["user_agent"][:9] for item in items[:2]] == ["x" * 9, "Phone/1.0"]
    assert len(items[0]["user_agent"]) == 256
    assert [item["current"] for item in items] == [False, True, False]
    assert sorted(items[0]) == [
        "created_at", "current", "expires_at", "id", "ip", "last_seen_at", "user_agent",
    ]  # fmt: skip
    assert all(item["created_at"].endswith("Z") and len(item["created_at"]) == 24 for item in items)
    gone = await api.delete(f"/auth/sessions/{items[0]['id']}", headers=bearer(phone["access_token"]))
    assert gone.status_code == 204
    assert (await me(api, laptop["access_token"])).status_code == 401
    assert len((await api.get("/auth/sessions", headers=bearer(phone["access_token"]))).json()["items"]) == 2


async def test_devices_come_in_pages(api: httpx.AsyncClient, kit: StateKit) -> None:
    account = await new_account(kit)
    people = [await begin_login(kit, account) for _ in range(5)]
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (
            await api.get("/auth/sessions", params={"limit": 2, **cursor}, headers=people[0].headers)
        ).json()
        seen += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert sorted(seen) == sorted(person.login_id for person in people)
    for wrong in ("x", "AAAA", "\u00e4"):
        answer = await api.get("/auth/sessions", params={"cursor": wrong}, headers=people[0].headers)
        assert answer.status_code == 422


async def test_another_users_device_does_not_exist(api: httpx.AsyncClient, kit: StateKit) -> None:
    person = await new_person(kit)
    admin = await new_person(kit, role="admin", tenant_id=person.account.tenant_id)
    bodies = []
    for login_id in (person.login_id, "lgn_1", "lgn_" + "1" * 22):
        answer = await api.delete(
            f"/auth/sessions/{login_id}", headers={**admin.headers, "X-Request-ID": "f" * 32}
        )
        assert answer.status_code == 404
        bodies.append(answer.content)
    assert len(set(bodies)) == 1
    assert (await me(api, person.access_token)).status_code == 200


async def test_changing_the_password_ends_the_other_logins(api: httpx.AsyncClient) -> None:
    await register(api)
    one, other = (await log_in(api)).json(), (await log_in(api)).json()
    assert (await me(api, other["access_token"])).status_code == 200
    answer = await api.post(
        "/auth/password",
        json={"current_password": PASSWORD, "new_password": "another good one"},
        headers=bearer(one["access_token"]),
    )
    assert answer.status_code == 204
    assert (await me(api, one["access_token"])).status_code == 200
    assert (await refresh(api, one["refresh_token"])).status_code == 200
    assert (await me(api, other["access_token"])).status_code == 401
    assert (await refresh(api, other["refresh_token"])).status_code == 401
    assert (await log_in(api)).status_code == 401
    assert (await log_in(api, password="another good one")).status_code == 200


async def test_a_wrong_current_password_changes_nothing_and_is_limited(api: httpx.AsyncClient) -> None:
    session = await register(api)
    for _ in range(5):
        answer = await api.post(
            "/auth/password",
            json={"current_password": "wrong one", "new_password": "another good one"},
            headers=bearer(session["access_token"]),
        )
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == "current_password"
    answer = await api.post(
        "/auth/password",
        json={"current_password": PASSWORD, "new_password": "another good one"},
        headers=bearer(session["access_token"]),
    )
    assert answer.status_code == 429
    assert (await me(api, session["access_token"])).status_code == 200


async def test_a_weak_new_password_is_refused(api: httpx.AsyncClient) -> None:
    session = await register(api)
    for weak in ("short", "password1", "ada@example.com"):
        answer = await api.post(
            "/auth/password",
            json={"current_password": PASSWORD, "new_password": weak},
            headers=bearer(session["access_token"]),
        )
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == "new_password"
