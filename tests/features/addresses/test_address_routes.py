"""The address book over HTTP, one rule at a time."""

from typing import Any

import httpx
import pytest

from app.core.ids import new_id
from app.state.kit import StateKit
from tests.features.answers import problem, wrong_fields
from tests.state.people import Person, log_in, new_account, new_person

FIELDS = [
    "id", "label", "contact_name", "phone", "line1", "line2", "city", "region", "postal_code", "country",
    "location", "is_default", "version", "created_at", "updated_at",
]  # fmt: skip


async def add(api: httpx.AsyncClient, address: dict[str, Any], **changes: Any) -> dict[str, Any]:
    answer = await api.post("/addresses", json={**address, **changes})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def defaults(api: httpx.AsyncClient) -> list[str]:
    items = (await api.get("/addresses", params={"limit": 100})).json()["items"]
    return [item["id"] for item in items if item["is_default"]]


async def test_an_address_is_added_read_and_listed(api: httpx.AsyncClient, hamburg: dict[str, Any]) -> None:
    answer = await api.post("/addresses", json=hamburg)
    assert answer.status_code == 201
    made = answer.json()
    assert list(made) == FIELDS
    assert made["phone"] == "+4940428540"
    assert (made["line2"], made["region"], made["is_default"]) == (None, None, False)
    assert answer.headers["etag"] == '"1"'
    assert answer.headers["location"] == f"/api/v1/addresses/{made['id']}"
    found = await api.get(f"/addresses/{made['id']}")
    assert (found.json(), found.headers["etag"]) == (made, '"1"')
    assert (await api.get("/addresses")).json() == {"items": [made], "next_cursor": None}


async def test_a_phone_number_may_be_written_as_it_is_dialled_in_its_country(
    api: httpx.AsyncClient, hamburg: dict[str, Any]
) -> None:
    assert (await add(api, hamburg, phone="040 / 42 85 40"))["phone"] == "+4940428540"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"country": "ZZ"}, "country"),
        ({"country": "DEU"}, "country"),
        ({"phone": "call me"}, "phone"),
        ({"phone": "+1 202 555"}, "phone"),
        ({"phone": 4940428540}, "phone"),
        ({"city": ""}, "city"),
        ({"city": None}, "city"),
        ({"label": "x" * 201}, "label"),
        ({"location": {"lat": 91, "lon": 0}}, "location.lat"),
        ({"location": {"lat": 1}}, "location.lon"),
        ({"location": {"lat": "1", "lon": 2}}, "location.lat"),
        ({"is_default": "true"}, "is_default"),
        ({"user_id": "usr_other"}, "user_id"),
    ],
)
async def test_what_is_no_address_is_refused_by_the_name_of_the_field(
    api: httpx.AsyncClient, hamburg: dict[str, Any], changes: dict[str, Any], field: str
) -> None:
    assert wrong_fields(await api.post("/addresses", json={**hamburg, **changes})) == {field}
    assert (await api.get("/addresses")).json()["items"] == []


async def test_every_missing_field_is_named(api: httpx.AsyncClient) -> None:
    missing = wrong_fields(await api.post("/addresses", json={}))
    assert missing == {"label", "contact_name", "phone", "line1", "city", "postal_code", "country"}


async def test_a_location_is_looked_up_unless_it_is_given(
    api: httpx.AsyncClient, hamburg: dict[str, Any]
) -> None:
    looked_up = (await add(api, hamburg))["location"]
    assert (round(looked_up["lat"], 1), round(looked_up["lon"], 1)) == (53.6, 10.0)
    given = {"lat": 53.5438, "lon": 9.9937}
    assert (await add(api, hamburg, location=given))["location"] == given
    assert (await add(api, hamburg, city="Kleinkleckersdorf"))["location"] is None


async def test_a_move_to_another_city_looks_the_location_up_again(
    api: httpx.AsyncClient, hamburg: dict[str, Any]
) -> None:
    made = await add(api, hamburg, location={"lat": 53.5438, "lon": 9.9937})
    path = f"/addresses/{made['id']}"
    renamed = (await api.patch(path, json={"label": "Gate 4"})).json()
    assert renamed["location"] == made["location"]
    moved = (
        await api.patch(path, json={"city": "Rotterdam", "country": "NL", "phone": "+31107654321"})
    ).json()
    assert (round(moved["location"]["lat"]), round(moved["location"]["lon"])) == (52, 4)


async def test_patch_changes_what_is_sent_and_null_removes_what_may_be_absent(
    api: httpx.AsyncClient, hamburg: dict[str, Any]
) -> None:
    made = await add(api, hamburg, line2="Gate 4")
    path = f"/addresses/{made['id']}"
    patched = await api.patch(path, json={"line2": None, "contact_name": "Kai"})
    assert (patched.status_code, patched.headers["etag"]) == (200, '"2"')
    changed = {"line2": None, "contact_name": "Kai", "version": 2}
    assert patched.json() == {**made, **changed, "updated_at": patched.json()["updated_at"]}
    assert wrong_fields(await api.patch(path, json={"city": None})) == {"city"}
    assert wrong_fields(await api.patch(path, json={"phone": "1"})) == {"phone"}
    assert (await api.get(path)).json() == patched.json()


async def test_put_replaces_the_whole(api: httpx.AsyncClient, hamburg: dict[str, Any]) -> None:
    made = await add(api, hamburg, line2="Gate 4", is_default=True)
    put = await api.put(f"/addresses/{made['id']}", json={**hamburg, "label": "Office", "version": 1})
    assert put.status_code == 200, put.text
    shown = put.json()
    assert (shown["label"], shown["line2"], shown["is_default"], shown["version"]) == (
        "Office",
        None,
        False,
        2,
    )


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_a_write_may_name_its_version(
    api: httpx.AsyncClient, hamburg: dict[str, Any], method: str
) -> None:
    path = f"/addresses/{(await add(api, hamburg))['id']}"
    stale = await api.request(method, path, json={**hamburg, "version": 9})
    assert (problem(stale), stale.json()["current_version"]) == ((409, "version_conflict"), 1)
    failed = await api.request(method, path, json={**hamburg, "version": 9}, headers={"If-Match": '"7"'})
    assert problem(failed) == (412, "precondition_failed")
    passed = await api.request(method, path, json=hamburg, headers={"If-Match": '"1"'})
    assert passed.json()["version"] == 2


async def test_a_deleted_address_is_gone(api: httpx.AsyncClient, hamburg: dict[str, Any]) -> None:
    path = f"/addresses/{(await add(api, hamburg, is_default=True))['id']}"
    assert problem(await api.delete(path, headers={"If-Match": '"2"'})) == (412, "precondition_failed")
    assert (await api.delete(path)).status_code == 204
    for answer in (await api.get(path), await api.delete(path), await api.patch(path, json={"label": "x"})):
        assert problem(answer) == (404, "not_found")
    assert await defaults(api) == []


async def test_the_default_moves_with_both_versions(api: httpx.AsyncClient, hamburg: dict[str, Any]) -> None:
    first = await add(api, hamburg, is_default=True)
    second = await add(api, hamburg, is_default=True)
    assert await defaults(api) == [second["id"]]
    was = (await api.get(f"/addresses/{first['id']}")).json()
    assert (was["is_default"], was["version"]) == (False, 2)
    back = await api.patch(f"/addresses/{first['id']}", json={"is_default": True, "version": 2})
    assert (back.status_code, back.json()["version"]) == (200, 3)
    assert await defaults(api) == [first["id"]]
    again = await api.patch(f"/addresses/{first['id']}", json={"is_default": True})
    assert again.json()["version"] == 4
    dropped = await api.patch(f"/addresses/{first['id']}", json={"is_default": False})
    assert dropped.json()["is_default"] is False
    assert await defaults(api) == []


async def test_a_switch_that_names_a_stale_version_leaves_the_default_where_it_was(
    api: httpx.AsyncClient, hamburg: dict[str, Any]
) -> None:
    first = await add(api, hamburg, is_default=True)
    second = await add(api, hamburg)
    stale = await api.patch(f"/addresses/{second['id']}", json={"is_default": True, "version": 7})
    assert problem(stale) == (409, "version_conflict")
    assert await defaults(api) == [first["id"]]
    assert (await api.get(f"/addresses/{first['id']}")).json() == first


async def test_anothers_address_does_not_exist(
    api: httpx.AsyncClient, app_kit: StateKit, me: Person, hamburg: dict[str, Any]
) -> None:
    made = await add(api, hamburg)
    colleague = await log_in(
        app_kit, await new_account(app_kit, role="admin", tenant_id=me.account.tenant_id)
    )
    stranger = await new_person(app_kit, role="admin")
    for person in (colleague, stranger):
        for method in ("GET", "PUT", "PATCH", "DELETE"):
            body = {"PUT": hamburg, "PATCH": {"label": "mine"}}.get(method)
            headers = {**person.headers, "X-Request-ID": "the-same"}
            there, nowhere = [
                await api.request(method, f"/addresses/{address_id}", json=body, headers=headers)
                for address_id in (made["id"], new_id("adr"))
            ]
            assert (there.status_code, there.content) == (404, nowhere.content)
        assert (await api.get("/addresses", headers=person.headers)).json()["items"] == []
    assert (await api.get(f"/addresses/{made['id']}")).json() == made


async def test_pages_go_on_behind_the_last_one_whatever_is_added(
    api: httpx.AsyncClient, hamburg: dict[str, Any]
) -> None:
    made = [(await add(api, hamburg, label=str(n)))["id"] for n in range(5)]
    seen: list[str] = []
    cursor = None
    while True:
        page = (
            await api.get("/addresses", params={"limit": 2, **({"cursor": cursor} if cursor else {})})
        ).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        await add(api, hamburg, label="later")
    assert seen == made[::-1]


@pytest.mark.settings(limit_address="3/hour")
async def test_writes_are_counted_together_and_reads_are_not(
    api: httpx.AsyncClient, hamburg: dict[str, Any]
) -> None:
    made = await add(api, hamburg)
    path = f"/addresses/{made['id']}"
    for _ in range(5):
        assert (await api.get(path)).status_code == 200
    assert (await api.patch(path, json={"label": "b"})).status_code == 200
    assert (await api.delete(path)).status_code == 204
    refused = await api.post("/addresses", json=hamburg)
    assert problem(refused) == (429, "rate_limited")
    assert refused.headers["ratelimit-policy"] == '"address";q=3;w=3600'
