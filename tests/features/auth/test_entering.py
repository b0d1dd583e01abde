import asyncio
from http.cookies import Morsel, SimpleCookie
from typing import Any

import httpx
import pytest
from argon2 import PasswordHasher

from app.core.passwords import HASHERS, QUEUE_MAX
from app.state.kit import StateKit
from tests.engines import RedisEngine
from tests.features.auth.calls import EMAIL, PASSWORD, bearer, log_in, me, register
from tests.state.people import new_account


def cookie_of(answer: httpx.Response) -> "Morsel[str]":
    return SimpleCookie(answer.headers["set-cookie"])["cf_refresh"]


async def test_registering_makes_a_tenant_with_its_admin_and_answers_like_a_login(
    api: httpx.AsyncClient,
) -> None:
    answer = await api.post(
        "/auth/register",
        json={"email": " Ada@Example.com", "password": PASSWORD, "name": "Ada", "company": "Nordwind"},
    )
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert sorted(body) == ["access_token", "expires_in", "refresh_token", "token_type", "user"]
    assert (body["token_type"], body["expires_in"]) == ("bearer", 900)
    assert sorted(body["user"]) == ["email", "id", "name", "role", "tenant_id"]
    assert (body["user"]["role"], body["user"]["email"]) == ("admin", "ada@example.com")
    seen = await me(api, body["access_token"])
    assert seen.status_code == 200
    assert seen.json() == {**body["user"], "tier": "standard"}
    tenant = await api.get("/tenant", headers=bearer(body["access_token"]))
    assert tenant.json()["name"] == "Nordwind"


async def test_a_taken_address_is_refused_and_leaves_no_tenant_behind(
    api: httpx.AsyncClient, kit: StateKit
) -> None:
    await register(api)
    answer = await api.post(
        "/auth/register",
        json={"email": EMAIL.upper(), "password": PASSWORD, "name": "Eve", "company": "Elsewhere"},
    )
    assert (answer.status_code, answer.json()["code"]) == (409, "email_taken")
    assert await kit.mongo.collection("tenants").count_documents({}) == 1


@pytest.mark.settings(limit_auth="100/minute", limit_auth_email="100/minute")
async def test_of_many_registrations_of_one_address_at_once_one_wins(
    api: httpx.AsyncClient, kit: StateKit
) -> None:
    body = {"email": EMAIL, "password": PASSWORD, "name": "Ada", "company": "Nordwind"}
    answers = await asyncio.gather(*(api.post("/auth/register", json=body) for _ in range(12)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 11
    assert await kit.mongo.collection("tenants").count_documents({}) == 1


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"email": "ada"}, "email"),
        ({"email": "a" * 300 + "@example.com"}, "email"),
        ({"password": "short"}, "password"),
        ({"password": "x" * 257}, "password"),
        ({"password": "password1"}, "password"),
        ({"password": "Ada@example.com"}, "password"),
        ({"name": "  "}, "name"),
        ({"company": ""}, "company"),
        ({"role": "admin"}, "role"),
        ({"password": 12345678901}, "password"),
        ({"email": {"$gt": ""}}, None),
    ],
)
async def test_a_registration_that_breaks_a_rule_changes_nothing(
    api: httpx.AsyncClient, kit: StateKit, changes: dict[str, Any], field: str | None
) -> None:
    body = {"email": EMAIL, "password": PASSWORD, "name": "Ada", "company": "Nordwind", **changes}
    answer = await api.post("/auth/register", json=body)
    assert answer.status_code == 422, answer.text
    if field is not None:
        assert field in [error["field"] for error in answer.json()["errors"]]
    assert await kit.mongo.collection("users").count_documents({}) == 0
    assert await kit.mongo.collection("tenants").count_documents({}) == 0


async def test_spaces_around_a_password_are_part_of_it(api: httpx.AsyncClient) -> None:
    await register(api, password=f"  {PASSWORD} ")
    assert (await log_in(api, password=PASSWORD)).status_code == 401
    assert (await log_in(api, password=f"  {PASSWORD} ")).status_code == 200


async def test_the_refresh_cookie_is_out_of_reach_for_scripts_and_other_sites(api: httpx.AsyncClient) -> None:
    body = await register(api)
    cookie = cookie_of(await log_in(api))
    assert cookie.value != body["refresh_token"]
    assert cookie["httponly"]
    assert cookie["samesite"] == "Strict"
    assert cookie["path"] == "/api/v1/auth"
    assert not cookie["secure"]
    assert 0 < int(cookie["max-age"]) <= 30 * 86400


@pytest.mark.settings(app_env="production")
async def test_in_production_the_cookie_travels_encrypted_only(api: httpx.AsyncClient) -> None:
    await register(api)
    assert cookie_of(await log_in(api))["secure"]


async def test_unknown_address_wrong_password_and_deactivated_user_get_the_same_answer(
    api: httpx.AsyncClient, kit: StateKit
) -> None:
    await register(api)
    idle = await new_account(kit, password_hash=await kit.passwords.hash(PASSWORD))
    await kit.accounts.change(tenant_id=idle.tenant_id, user_id=idle.id, changes={"active": False})
    bodies = []
    for email, password in (
        (EMAIL, "wrong password"),
        ("nobody@example.com", PASSWORD),
        (idle.email, PASSWORD),
    ):
        answer = await log_in(api, email, password, **{"X-Request-ID": "f" * 32})
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers
        bodies.append(answer.content)
    assert len(set(bodies)) == 1


async def test_whoever_is_named_a_login_waits_for_a_hasher_and_is_refused_when_too_many_do(
    api: httpx.AsyncClient, kit: StateKit
) -> None:
    await register(api)
    kit.passwords._under_way = HASHERS + QUEUE_MAX
    for email in (EMAIL, "nobody@example.com"):
        answer = await log_in(api, email)
        assert (answer.status_code, answer.json()["code"]) == (503, "passwords_busy")
        assert answer.headers["retry-after"] == "1"
    kit.passwords._under_way = 0
    assert (await log_in(api)).status_code == 200


async def test_a_hash_with_old_parameters_is_replaced_by_a_login(
    api: httpx.AsyncClient, kit: StateKit
) -> None:
    old = PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1).hash(PASSWORD)
    account = await new_account(kit, password_hash=old)
    assert (await log_in(api, account.email)).status_code == 200
    after = await kit.accounts.get(tenant_id=account.tenant_id, user_id=account.id)
    assert not kit.passwords.outdated(after.password_hash)
    assert (await log_in(api, account.email)).status_code == 200


async def test_after_five_failures_even_the_right_password_waits(api: httpx.AsyncClient) -> None:
    await register(api)
    for _ in range(5):
        assert (await log_in(api, password="wrong password")).status_code == 401
    refused = await log_in(api)
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert 0 < int(refused.headers["retry-after"]) <= 900


async def test_attempts_that_succeed_are_not_counted(api: httpx.AsyncClient) -> None:
    await register(api)
    for _ in range(4):
        assert (await log_in(api, password="wrong password")).status_code == 401
    for _ in range(7):
        assert (await log_in(api)).status_code == 200
    assert (await log_in(api, password="wrong password")).status_code == 401
    assert (await log_in(api)).status_code == 429


async def test_one_address_gets_twenty_failures_from_all_clients_together(
    api: httpx.AsyncClient, app: Any
) -> None:
    await register(api)
    statuses = []
    for client_number in range(5):
        transport = httpx.ASGITransport(app, client=(f"192.0.2.{client_number}", 50000))
        async with httpx.AsyncClient(transport=transport, base_url=api.base_url) as other:
            statuses += [(await log_in(other, password="wrong password")).status_code for _ in range(5)]
    assert statuses == [401] * 20 + [429] * 5
    assert (await log_in(api)).status_code == 429


async def test_upper_case_does_not_open_a_fresh_window(api: httpx.AsyncClient) -> None:
    for email in (
        "ada@example.com",
        "ADA@example.com",
        " ada@EXAMPLE.com",
        "Ada@example.com",
        "aDa@example.com",
    ):
        assert (await log_in(api, email, "wrong password")).status_code == 401
    assert (await log_in(api, "adA@example.com", "wrong password")).status_code == 429


@pytest.mark.settings(limit_anonymous="3/minute")
async def test_addresses_tried_one_after_another_from_one_client_are_limited_too(
    api: httpx.AsyncClient,
) -> None:
    statuses = [(await log_in(api, f"user{number}@example.com")).status_code for number in range(4)]
    assert statuses == [401, 401, 401, 429]


async def test_without_redis_nobody_can_guess_passwords(
    api: httpx.AsyncClient, redis_engine: RedisEngine
) -> None:
    body = await register(api)
    redis_engine.freeze()
    try:
        async with asyncio.timeout(10):
            refused = await log_in(api)
            assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
            assert "retry-after" in refused.headers
            assert (await me(api, body["access_token"])).status_code == 200
    finally:
        redis_engine.thaw()
