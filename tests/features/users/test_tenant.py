import asyncio
from typing import Any

import httpx
import pytest

from app.features.users.schemas import time_zones
from app.state.kit import StateKit
from tests.engines import RedisEngine
from tests.state.people import Person, new_person


@pytest.fixture
async def admin(kit: StateKit) -> Person:
    return await new_person(kit, role="admin")


async def test_staff_reads_the_tenant_and_its_admin_changes_it(
    api: httpx.AsyncClient, kit: StateKit, admin: Person
) -> None:
    clerk = await new_person(kit, role="underwriter", tenant_id=admin.account.tenant_id)
    read = await api.get("/tenant", headers=clerk.headers)
    assert read.headers["etag"] == '"1"'
    assert sorted(read.json()) == [
        "created_at", "currency", "id", "name", "time_zone", "updated_at", "version",
    ]  # fmt: skip
    body = {"name": "Nordwind SE", "currency": "CHF", "time_zone": "Europe/Zurich"}
    assert (await api.patch("/tenant", json=body, headers=clerk.headers)).status_code == 403
    changed = await api.patch("/tenant", json=body, headers=admin.headers)
    assert changed.status_code == 200
    read = await api.get("/tenant", headers=clerk.headers)
    assert read.json() == changed.json()
    assert {name: read.json()[name] for name in body} == body


@pytest.mark.parametrize(
    "body",
    [
        {"currency": "XYZ"}, {"currency": "eur"}, {"currency": "EURO"}, {"currency": None}, {"currency": 978},
        {"time_zone": "Mars/Olympus"}, {"time_zone": "../etc/passwd"}, {"time_zone": ""},
        {"time_zone": "europe/berlin"},
        {"name": " "}, {"name": "x" * 201}, {"id": "ten_1"}, {"roster": 9},
    ],
)  # fmt: skip
async def test_a_change_that_breaks_a_rule_changes_nothing(
    api: httpx.AsyncClient, admin: Person, body: dict[str, Any]
) -> None:
    assert (await api.patch("/tenant", json=body, headers=admin.headers)).status_code == 422
    assert (await api.get("/tenant", headers=admin.headers)).json()["version"] == 1


async def test_of_many_changes_of_one_version_one_wins(api: httpx.AsyncClient, admin: Person) -> None:
    answers = await asyncio.gather(
        *(
            api.patch("/tenant", json={"name": f"Name {number}", "version": 1}, headers=admin.headers)
            for number in range(20)
        )
    )
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 19


async def test_a_stale_if_match_is_refused(api: httpx.AsyncClient, admin: Person) -> None:
    await api.patch("/tenant", json={"currency": "USD"}, headers=admin.headers)
    answer = await api.patch(
        "/tenant", json={"currency": "GBP"}, headers={**admin.headers, "If-Match": '"1"'}
    )
    assert (answer.status_code, answer.json()["code"]) == (412, "precondition_failed")
    assert (await api.get("/tenant", headers=admin.headers)).json()["currency"] == "USD"


async def test_changing_nothing_moves_no_version(api: httpx.AsyncClient, admin: Person) -> None:
    for body in ({}, {"currency": "EUR"}):
        assert (await api.patch("/tenant", json=body, headers=admin.headers)).json()["version"] == 1


def test_the_usual_time_zones_are_known() -> None:
    assert {"UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"} <= time_zones()


async def test_the_tenant_is_cached_until_it_is_changed(
    api: httpx.AsyncClient, kit: StateKit, admin: Person
) -> None:
    clerk = await new_person(kit, role="underwriter", tenant_id=admin.account.tenant_id)
    first = await api.get("/tenant", headers=admin.headers)
    assert first.headers["x-cache"] == "MISS"
    async with asyncio.timeout(20):
        while (again := await api.get("/tenant", headers=clerk.headers)).headers["x-cache"] != "HIT":
            pass
    assert (again.content, again.headers["etag"]) == (first.content, first.headers["etag"])
    for name in ("Nordwind SE", "Nordwind AG"):
        changed = await api.patch("/tenant", json={"name": name}, headers=admin.headers)
        read = await api.get("/tenant", headers=clerk.headers)
        assert read.headers["x-cache"] == "MISS"
        assert (read.content, read.headers["etag"]) == (changed.content, changed.headers["etag"])


async def test_another_tenants_settings_are_never_read_from_the_cache(
    api: httpx.AsyncClient, kit: StateKit, admin: Person
) -> None:
    stranger = await new_person(kit, role="admin")
    for _ in range(3):
        for person in (admin, stranger):
            read = await api.get("/tenant", headers=person.headers)
            assert read.json()["id"] == person.account.tenant_id


async def test_a_refused_change_leaves_no_barrier(api: httpx.AsyncClient, admin: Person) -> None:
    refused = await api.patch("/tenant", json={"name": "X", "version": 7}, headers=admin.headers)
    assert refused.status_code == 409
    assert (await api.get("/tenant", headers=admin.headers)).headers["x-cache"] == "MISS"


async def test_without_redis_the_tenant_is_read_past_the_cache(
    api: httpx.AsyncClient, kit: StateKit, admin: Person, redis_engine: RedisEngine
) -> None:
    redis_engine.kill()
    read = await api.get("/tenant", headers=admin.headers)
    assert (read.status_code, read.headers["x-cache"]) == (200, "BYPASS")


async def test_the_cache_is_counted_next_to_the_hot_copies(
    api: httpx.AsyncClient, kit: StateKit, admin: Person
) -> None:
    for _ in range(5):
        await api.get("/tenant", headers=admin.headers)
    kit.hot.tally("cache/tenant", "load_failed")
    await kit.hot.beat()
    stats = (await api.get("http://cargoflow.test/cache-stats")).json()
    reads = stats["by_kind"]["cache/tenant"]
    assert reads.pop("load_failed") == 1
    assert sum(reads.values()) == 5
    others = [outcomes for kind, outcomes in stats["by_kind"].items() if kind != "cache/tenant"]
    assert stats["reads"] == 5 + sum(sum(outcomes.values()) for outcomes in others)
