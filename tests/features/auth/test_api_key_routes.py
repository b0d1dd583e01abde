import httpx
import pytest

from app.state.kit import StateKit
from tests.state.people import new_person


async def test_a_key_is_shown_once_and_acts_as_its_user(api: httpx.AsyncClient, kit: StateKit) -> None:
    person = await new_person(kit, role="shipper")
    answer = await api.post("/api-keys", json={"name": "ERP"}, headers=person.headers)
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    created = answer.json()
    assert sorted(created) == ["created_at", "id", "key", "name", "tier"]
    assert created["key"].startswith(created["id"] + ".")
    listed = (await api.get("/api-keys", headers=person.headers)).json()
    assert listed == {"items": [{k: v for k, v in created.items() if k != "key"}], "next_cursor": None}
    me = await api.get("/auth/me", headers={"X-API-Key": created["key"]})
    assert me.json()["id"] == person.account.id
    assert (await api.delete(f"/api-keys/{created['id']}", headers=person.headers)).status_code == 204
    assert (await api.get("/auth/me", headers={"X-API-Key": created["key"]})).status_code == 401
    assert (await api.delete(f"/api-keys/{created['id']}", headers=person.headers)).status_code == 404


async def test_a_key_cannot_make_keys_change_passwords_or_log_out(
    api: httpx.AsyncClient, kit: StateKit
) -> None:
    person = await new_person(kit, role="admin")
    created = (await api.post("/api-keys", json={"name": "ERP"}, headers=person.headers)).json()
    headers = {"X-API-Key": created["key"]}
    for path, body in (
        ("/api-keys", {"name": "another"}),
        ("/auth/password", {"current_password": "x", "new_password": "another good one"}),
        ("/auth/logout", None),
        ("/auth/logout-all", None),
    ):
        answer = await api.post(path, json=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), path


async def test_only_an_admin_gives_a_key_another_tier(api: httpx.AsyncClient, kit: StateKit) -> None:
    admin, driver = await new_person(kit, role="admin"), await new_person(kit, role="driver")
    premium = {"name": "ERP", "tier": "premium"}
    assert (await api.post("/api-keys", json=premium, headers=driver.headers)).status_code == 403
    created = (await api.post("/api-keys", json=premium, headers=admin.headers)).json()
    answer = await api.get("/auth/me", headers={"X-API-Key": created["key"]})
    assert answer.json()["tier"] == "premium"
    assert "q=3000" in answer.headers["ratelimit-policy"]
    assert (
        await api.post("/api-keys", json={"name": "ERP", "tier": "gold"}, headers=admin.headers)
    ).status_code == 422


async def test_the_twenty_first_key_is_refused(api: httpx.AsyncClient, kit: StateKit) -> None:
    person = await new_person(kit)
    for number in range(20):
        assert (
            await api.post("/api-keys", json={"name": f"{number}"}, headers=person.headers)
        ).status_code == 201
    answer = await api.post("/api-keys", json={"name": "one more"}, headers=person.headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "api_key_limit")


@pytest.mark.parametrize(
    "key", ["", ".", "key_", "key_1.x", "x" * 5000, "key_" + "1" * 22, "key_" + "1" * 22 + "." + "A" * 43]
)
async def test_what_is_no_key_is_nobody(api: httpx.AsyncClient, key: str) -> None:
    answer = await api.get("/auth/me", headers={"X-API-Key": key})
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")


async def test_an_access_token_wins_over_a_key(api: httpx.AsyncClient, kit: StateKit) -> None:
    person, other = await new_person(kit), await new_person(kit)
    created = (await api.post("/api-keys", json={"name": "ERP"}, headers=other.headers)).json()
    answer = await api.get("/auth/me", headers={**person.headers, "X-API-Key": created["key"]})
    assert answer.json()["id"] == person.account.id
