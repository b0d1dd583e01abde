import asyncio
from datetime import timedelta

import httpx
import pytest

from app.core.settings import Settings
from app.state.kit import StateKit, open_kit
from tests.features.auth.calls import log_in, me, refresh, register
from tests.state.people import ensure_indexes, new_person
from tests.waiting import held_by_one_task, until


async def test_a_refresh_answers_like_a_login_with_new_tokens(api: httpx.AsyncClient) -> None:
    first = await register(api)
    answer = await refresh(api, first["refresh_token"])
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    second = answer.json()
    assert sorted(second) == sorted(first)
    assert second["user"] == first["user"]
    assert second["refresh_token"] != first["refresh_token"]
    assert (await me(api, second["access_token"])).status_code == 200


async def test_the_cookie_refreshes_and_the_body_wins_over_it(api: httpx.AsyncClient) -> None:
    first = await register(api)
    assert api.cookies["cf_refresh"] == first["refresh_token"]
    second = await api.post("/auth/refresh")
    assert second.status_code == 200
    assert api.cookies["cf_refresh"] == second.json()["refresh_token"]
    third = await api.post("/auth/refresh", json={})
    assert third.status_code == 200
    for body_token in ("", "cfr_forged"):
        assert (await api.post("/auth/refresh", json={"refresh_token": body_token})).status_code == 401
    assert (await api.post("/auth/refresh")).status_code == 200


async def test_without_any_token_there_is_nothing_to_refresh(api: httpx.AsyncClient) -> None:
    answer = await api.post("/auth/refresh")
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")


async def test_reuse_after_the_grace_says_so_and_ends_the_login(
    api: httpx.AsyncClient, kit: StateKit
) -> None:
    first = await register(api)
    second = (await refresh(api, first["refresh_token"])).json()
    again = (await refresh(api, first["refresh_token"])).json()
    assert again["refresh_token"] == second["refresh_token"]
    await kit.mongo.collection("logins").update_many(
        {}, {"$set": {"refresh.rotated.0.until": kit.clock.now() - timedelta(seconds=1)}}
    )
    answer = await refresh(api, first["refresh_token"])
    assert (answer.status_code, answer.json()["code"]) == (401, "refresh_reused")
    assert (await refresh(api, second["refresh_token"])).json()["code"] == "unauthenticated"
    assert (await me(api, second["access_token"])).status_code == 401


async def test_refreshing_is_not_counted(api: httpx.AsyncClient) -> None:
    token = (await register(api))["refresh_token"]
    for _ in range(120):
        answer = await refresh(api, token)
        assert answer.status_code == 200
        assert "ratelimit" not in answer.headers
        token = answer.json()["refresh_token"]


async def test_a_deactivated_user_refreshes_no_more(api: httpx.AsyncClient, kit: StateKit) -> None:
    person = await new_person(kit)
    owner = {"tenant_id": person.account.tenant_id, "user_id": person.account.id}
    await kit.accounts.change(**owner, changes={"active": False})
    assert (await refresh(api, person.refresh_token)).status_code == 401
    await kit.accounts.change(**owner, changes={"active": True})
    assert (await refresh(api, person.refresh_token)).status_code == 401


async def test_a_hundred_refreshes_through_two_replicas_get_one_successor(
    replicas: list[str], settings: Settings
) -> None:
    async with held_by_one_task(open_kit(settings)) as kit:
        await until(lambda: kit.mongo.health.status == "pass" and kit.redis.health.status == "pass")
        await ensure_indexes(kit)
        person = await new_person(kit)
    async with httpx.AsyncClient(timeout=30) as http:
        answers = await asyncio.gather(
            *(
                http.post(
                    f"{replicas[number % 2]}/api/v1/auth/refresh",
                    json={"refresh_token": person.refresh_token},
                )
                for number in range(100)
            )
        )
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["refresh_token"] for answer in answers}) == 1
    assert {answer.headers["x-replica"] for answer in answers} == {"replica-1", "replica-2"}


@pytest.mark.parametrize("token", ["", "x", "cfr_", "cfr_lgn_1.1.a.b", "\u0130", "x" * 512])
async def test_what_is_no_token_is_refused(api: httpx.AsyncClient, token: str) -> None:
    assert (await refresh(api, token)).status_code == 401


async def test_each_login_is_a_family_of_its_own(api: httpx.AsyncClient, kit: StateKit) -> None:
    await register(api)
    one, other = (await log_in(api)).json(), (await log_in(api)).json()
    await refresh(api, one["refresh_token"])
    await kit.mongo.collection("logins").update_many(
        {"refresh.generation": 2},
        {"$set": {"refresh.rotated.0.until": kit.clock.now() - timedelta(seconds=1)}},
    )
    assert (await refresh(api, one["refresh_token"])).json()["code"] == "refresh_reused"
    assert (await refresh(api, other["refresh_token"])).status_code == 200
