import asyncio
from typing import Any

import httpx
import pytest

from app.state.kit import StateKit
from tests.state.people import Person, new_account, new_person

PASSWORD = "correct horse battery"


@pytest.fixture
async def admin(kit: StateKit) -> Person:
    return await new_person(kit, role="admin")


def new_user(**changes: Any) -> dict[str, Any]:
    return {"email": "grace@example.com", "name": "Grace", "role": "driver", "password": PASSWORD, **changes}


async def test_an_admin_adds_a_user_who_can_log_in(api: httpx.AsyncClient, admin: Person) -> None:
    answer = await api.post("/users", json=new_user(), headers=admin.headers)
    assert answer.status_code == 201
    created = answer.json()
    assert answer.headers["location"] == f"/api/v1/users/{created['id']}"
    assert answer.headers["etag"] == '"1"'
    assert sorted(created) == [
        "active", "created_at", "email", "id", "name", "role", "tenant_id", "tier", "updated_at", "version",
    ]  # fmt: skip
    assert created["tenant_id"] == admin.account.tenant_id
    read = await api.get(f"/users/{created['id']}", headers=admin.headers)
    assert read.json() == created
    entered = await api.post("/auth/login", json={"email": "grace@example.com", "password": PASSWORD})
    assert entered.json()["user"]["role"] == "driver"


async def test_an_address_in_use_anywhere_is_refused(
    api: httpx.AsyncClient, kit: StateKit, admin: Person
) -> None:
    elsewhere = await new_account(kit)
    answer = await api.post("/users", json=new_user(email=elsewhere.email.upper()), headers=admin.headers)
    assert (answer.status_code, answer.json()["code"]) == (409, "email_taken")


@pytest.mark.parametrize(
    "changes",
    [
        {"email": "grace"}, {"role": "owner"}, {"role": None}, {"name": ""}, {"password": "short"},
        {"password": "password1"}, {"password": "grace@example.com"}, {"tier": "premium"},
        {"tenant_id": "ten_1"},
    ],
)  # fmt: skip
async def test_a_user_that_breaks_a_rule_is_not_made(
    api: httpx.AsyncClient, kit: StateKit, admin: Person, changes: dict[str, Any]
) -> None:
    answer = await api.post("/users", json=new_user(**changes), headers=admin.headers)
    assert answer.status_code == 422, answer.text
    assert await kit.mongo.collection("users").count_documents({}) == 1


async def test_the_list_holds_every_user_of_the_tenant_and_nobody_elses(
    api: httpx.AsyncClient, kit: StateKit, admin: Person
) -> None:
    mine = {admin.account.id} | {
        (await new_account(kit, tenant_id=admin.account.tenant_id)).id for _ in range(6)
    }
    await new_account(kit)
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await api.get("/users", params={"limit": 3, **cursor}, headers=admin.headers)).json()
        seen += [user["id"] for user in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert len(seen) == len(set(seen)) == 7
    assert set(seen) == mine


@pytest.mark.parametrize(
    "query", [{"limit": 0}, {"limit": 101}, {"limit": "x"}, {"cursor": "x"}, {"cursor": ""}]
)
async def test_a_page_that_cannot_be_is_refused(
    api: httpx.AsyncClient, admin: Person, query: dict[str, Any]
) -> None:
    assert (await api.get("/users", params=query, headers=admin.headers)).status_code == 422


async def test_another_tenants_user_and_none_at_all_look_the_same(
    api: httpx.AsyncClient, kit: StateKit, admin: Person
) -> None:
    stranger = await new_account(kit)
    bodies = []
    for user_id in (stranger.id, "usr_" + "1" * 22, "x", "%00"):
        for method, body in (("GET", None), ("PATCH", {"name": "Mallory"})):
            answer = await api.request(
                method, f"/users/{user_id}", json=body, headers={**admin.headers, "X-Request-ID": "f" * 32}
            )
            assert answer.status_code == 404
            bodies.append(answer.content)
    assert len(set(bodies)) == 1
    found = await kit.accounts.get(tenant_id=stranger.tenant_id, user_id=stranger.id)
    assert found.name == stranger.name


async def test_a_role_change_acts_on_the_next_request(
    api: httpx.AsyncClient, kit: StateKit, admin: Person
) -> None:
    person = await new_person(kit, role="driver", tenant_id=admin.account.tenant_id)
    assert (await api.get("/tenant", headers=person.headers)).status_code == 403
    path = f"/users/{person.account.id}"
    assert (await api.patch(path, json={"role": "dispatcher"}, headers=admin.headers)).status_code == 200
    assert (await api.get("/tenant", headers=person.headers)).status_code == 200
    assert (await api.patch(path, json={"role": "shipper"}, headers=admin.headers)).status_code == 200
    assert (await api.get("/tenant", headers=person.headers)).status_code == 403


async def test_a_user_who_becomes_a_driver_may_stay_away_for_longer(
    api: httpx.AsyncClient, kit: StateKit, admin: Person
) -> None:
    person = await new_person(kit, role="shipper", tenant_id=admin.account.tenant_id)
    await api.patch(f"/users/{person.account.id}", json={"role": "driver"}, headers=admin.headers)
    renewed = await api.post("/auth/refresh", json={"refresh_token": person.refresh_token})
    assert renewed.json()["user"]["role"] == "driver"
    row = await kit.mongo.collection("logins").find_one({"_id": person.login_id})
    assert 8 * 3600 - 30 < (row["expires_at"] - kit.clock.now()).total_seconds() <= 8 * 3600 + 1


async def test_deactivating_ends_logins_and_keys_for_good(
    api: httpx.AsyncClient, kit: StateKit, admin: Person
) -> None:
    person = await new_person(kit, tenant_id=admin.account.tenant_id)
    key = (await api.post("/api-keys", json={"name": "ERP"}, headers=person.headers)).json()["key"]
    path = f"/users/{person.account.id}"
    answer = await api.patch(path, json={"active": False}, headers=admin.headers)
    assert (answer.status_code, answer.json()["active"]) == (200, False)
    for headers in (person.headers, {"X-API-Key": key}):
        assert (await api.get("/auth/me", headers=headers)).status_code == 401
    assert (await api.patch(path, json={"active": True}, headers=admin.headers)).status_code == 200
    for headers in (person.headers, {"X-API-Key": key}):
        assert (await api.get("/auth/me", headers=headers)).status_code == 401


async def test_keys_that_a_deactivation_cut_short_left_over_stay_dead(
    api: httpx.AsyncClient, kit: StateKit, admin: Person
) -> None:
    person = await new_person(kit, tenant_id=admin.account.tenant_id)
    key = (await api.post("/api-keys", json={"name": "ERP"}, headers=person.headers)).json()["key"]
    await kit.accounts.change(
        tenant_id=admin.account.tenant_id, user_id=person.account.id, changes={"active": False}
    )
    await api.patch(f"/users/{person.account.id}", json={"active": True}, headers=admin.headers)
    assert (await api.get("/auth/me", headers={"X-API-Key": key})).status_code == 401


async def test_a_tier_is_raised_for_the_next_request(
    api: httpx.AsyncClient, kit: StateKit, admin: Person
) -> None:
    person = await new_person(kit, tenant_id=admin.account.tenant_id)
    await api.patch(f"/users/{person.account.id}", json={"tier": "premium"}, headers=admin.headers)
    answer = await api.get("/auth/me", headers=person.headers)
    assert answer.json()["tier"] == "premium"
    assert answer.headers["ratelimit-policy"].startswith('"premium"')


@pytest.mark.parametrize(
    "body",
    [
        {"name": None}, {"role": None}, {"role": "king"}, {"active": "yes"}, {"active": 1}, {"version": 0},
        {"version": "1"}, {"version": 1.5}, {"email": "new@example.com"}, {"tenant_id": "x"},
        {"password": PASSWORD},
    ],
)  # fmt: skip
async def test_a_change_that_breaks_a_rule_changes_nothing(
    api: httpx.AsyncClient, kit: StateKit, admin: Person, body: dict[str, Any]
) -> None:
    account = await new_account(kit, tenant_id=admin.account.tenant_id)
    assert (await api.patch(f"/users/{account.id}", json=body, headers=admin.headers)).status_code == 422
    assert (await kit.accounts.get(tenant_id=account.tenant_id, user_id=account.id)).version == 1


async def test_versions_are_checked_if_match_first(
    api: httpx.AsyncClient, kit: StateKit, admin: Person
) -> None:
    account = await new_account(kit, tenant_id=admin.account.tenant_id)
    path = f"/users/{account.id}"

    async def patch(body: dict[str, Any], **headers: str) -> httpx.Response:
        return await api.patch(path, json=body, headers={**admin.headers, **headers})

    first = await patch({"name": "Grace"}, **{"If-Match": '"1"'})
    assert (first.status_code, first.headers["etag"]) == (200, '"2"')
    stale = await patch({"name": "Eve"}, **{"If-Match": '"1"'})
    assert (stale.status_code, stale.json()["code"]) == (412, "precondition_failed")
    stale = await patch({"name": "Eve", "version": 1})
    assert (stale.status_code, stale.json()["code"]) == (409, "version_conflict")
    assert stale.json()["current_version"] == 2
    both = await patch({"name": "Eve", "version": 1}, **{"If-Match": '"1"'})
    assert both.status_code == 412
    last = await patch({"name": "Hopper", "version": 2}, **{"If-Match": '"2"'})
    assert last.json()["version"] == 3


async def test_of_many_changes_of_one_version_one_wins(
    api: httpx.AsyncClient, kit: StateKit, admin: Person
) -> None:
    account = await new_account(kit, tenant_id=admin.account.tenant_id)
    answers = await asyncio.gather(
        *(
            api.patch(
                f"/users/{account.id}", json={"name": f"Name {number}", "version": 1}, headers=admin.headers
            )
            for number in range(20)
        )
    )
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 19


async def test_the_last_admin_cannot_leave(api: httpx.AsyncClient, admin: Person) -> None:
    for body in ({"role": "driver"}, {"active": False}):
        answer = await api.patch(f"/users/{admin.account.id}", json=body, headers=admin.headers)
        assert (answer.status_code, answer.json()["code"]) == (409, "last_admin")
    renamed = await api.patch(
        f"/users/{admin.account.id}", json={"name": "Ada", "role": "admin"}, headers=admin.headers
    )
    assert renamed.status_code == 200


async def test_two_admins_who_demote_each_other_at_once_do_not_both_succeed(
    api: httpx.AsyncClient, kit: StateKit
) -> None:
    for _ in range(10):
        one = await new_person(kit, role="admin")
        other = await new_person(kit, role="admin", tenant_id=one.account.tenant_id)
        answers = await asyncio.gather(
            api.patch(f"/users/{other.account.id}", json={"role": "driver"}, headers=one.headers),
            api.patch(f"/users/{one.account.id}", json={"active": False}, headers=other.headers),
        )
        remaining = await kit.mongo.collection("users").count_documents(
            {"tenant_id": one.account.tenant_id, "role": "admin", "active": True}
        )
        assert remaining == 1, [answer.text for answer in answers]
        assert [answer.status_code for answer in answers].count(200) == 1


async def test_an_admins_api_key_manages_users_too(api: httpx.AsyncClient, admin: Person) -> None:
    key = (await api.post("/api-keys", json={"name": "HR"}, headers=admin.headers)).json()["key"]
    assert (await api.post("/users", json=new_user(), headers={"X-API-Key": key})).status_code == 201
