import asyncio
from typing import Any

import httpx
import pytest

from app.features.users.schemas import time_zones
from app.state.kit import StateKit
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
