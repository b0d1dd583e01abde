"""Drafts over HTTP, one rule at a time."""

from typing import Any

import httpx
import pytest

from app.core.ids import new_id
from app.state.kit import StateKit
from tests.features.answers import problem, wrong_fields
from tests.features.bookings.shipments import HAMBURG, in_days, shipment
from tests.state.people import Person, log_in, new_account, new_person

FIELDS = [
    "id", "data", "step", "version", "saved_at", "expires_at", "applied", "submitted", "missing", "invalid",
]  # fmt: skip


async def begin(api: httpx.AsyncClient, data: Any = None, **fields: Any) -> dict[str, Any]:
    answer = await api.post("/bookings/drafts", json={"data": data or {}, **fields})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def save(api: httpx.AsyncClient, draft: dict[str, Any], data: Any, **fields: Any) -> dict[str, Any]:
    answer = await api.patch(f"/bookings/drafts/{draft['id']}", json={"data": data, **fields})
    assert answer.status_code == 200, answer.text
    saved: dict[str, Any] = answer.json()
    return saved


async def test_a_draft_is_begun_read_and_listed(api: httpx.AsyncClient) -> None:
    data = {"pickup": {"city": "Hamb"}, "cargo": {"weight_kg": 8400}}
    answer = await api.post("/bookings/drafts", json={"data": data, "step": 1})
    assert answer.status_code == 201
    made = answer.json()
    assert list(made) == FIELDS
    assert (made["data"], made["step"], made["version"], made["applied"]) == (data, 1, 1, True)
    assert answer.headers["etag"] == '"1"'
    assert answer.headers["location"] == f"/api/v1/bookings/drafts/{made['id']}"
    found = await api.get(f"/bookings/drafts/{made['id']}")
    assert (found.json(), found.headers["etag"]) == (made, '"1"')
    assert (await api.get("/bookings/drafts")).json() == {"items": [made], "next_cursor": None}
    assert (await api.post("/bookings/drafts", json={})).status_code == 201


async def test_a_draft_says_what_it_lacks_and_what_would_be_refused(api: httpx.AsyncClient) -> None:
    empty = await begin(api)
    assert empty["missing"] == ["pickup", "delivery", "cargo", "equipment", "pickup_at"]
    pickup = {**HAMBURG, "city": None, "phone": "+49 4"}
    draft = await save(api, empty, shipment(pickup=pickup, cargo={"weight_kg": 0, "pieces": 2}))
    assert draft["missing"] == ["pickup.city", "cargo.description"]
    assert {row["field"] for row in draft["invalid"]} == {"pickup.phone", "cargo.weight_kg"}
    whole = await save(api, draft, shipment())
    assert (whole["missing"], whole["invalid"]) == ([], [])


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"pickup": "Hamburg"}, "data.pickup"),
        ({"pickup": {"city": 7}}, "data.pickup.city"),
        ({"cargo": {"weight_kg": "8400"}}, "data.cargo.weight_kg"),
        ({"cargo": {"pieces": 1.5}}, "data.cargo.pieces"),
        ({"equipment": "submarine"}, "data.equipment"),
        ({"pickup_at": "soon"}, "data.pickup_at"),
        ({"notes": "x" * 2001}, "data.notes"),
        ({"colour": "red"}, "data.colour"),
        ([], "data"),
        (None, "data"),
    ],
)
async def test_what_is_typed_must_be_of_the_right_type(api: httpx.AsyncClient, data: Any, field: str) -> None:
    assert wrong_fields(await api.post("/bookings/drafts", json={"data": data})) == {field}
    draft = await begin(api, {"notes": "kept"})
    answer = await api.patch(f"/bookings/drafts/{draft['id']}", json={"data": data})
    assert wrong_fields(answer) == {field}
    assert (await api.get(f"/bookings/drafts/{draft['id']}")).json() == draft


async def test_what_is_typed_is_kept_to_the_letter(api: httpx.AsyncClient) -> None:
    draft = await begin(api, {"notes": "Ring twice, ", "pickup": {"phone": "+49 4"}})
    assert draft["data"] == {"notes": "Ring twice, ", "pickup": {"phone": "+49 4"}}


async def test_two_tabs_that_edit_different_fields_both_keep_their_work(api: httpx.AsyncClient) -> None:
    draft = await begin(api, {"pickup": {"city": "Hamburg", "country": "DE"}})
    await save(api, draft, {"pickup": {"city": "Kiel"}}, client_id="tab-1", seq=1)
    other = await save(api, draft, {"pickup": {"line1": "Kai 1"}, "notes": "x"}, client_id="tab-2", seq=1)
    assert other["data"] == {"pickup": {"city": "Kiel", "country": "DE", "line1": "Kai 1"}, "notes": "x"}
    assert other["version"] == 3
    cleared = await save(api, draft, {"notes": None, "pickup": {"line1": None}})
    assert cleared["data"] == {"pickup": {"city": "Kiel", "country": "DE"}}


async def test_of_the_same_field_the_later_save_wins_and_the_version_tells_the_other_tab(
    api: httpx.AsyncClient,
) -> None:
    draft = await begin(api)
    mine = await save(api, draft, {"notes": "mine"}, client_id="tab-1", seq=1)
    theirs = await save(api, draft, {"notes": "theirs"}, client_id="tab-2", seq=1)
    assert theirs["version"] == mine["version"] + 1
    stale = await api.patch(
        f"/bookings/drafts/{draft['id']}",
        json={"data": {"notes": "again"}, "client_id": "tab-1", "seq": 2, "version": mine["version"]},
    )
    assert (problem(stale), stale.json()["current_version"]) == ((409, "version_conflict"), 3)
    assert stale.headers["etag"] == '"3"'
    failed = await api.patch(
        f"/bookings/drafts/{draft['id']}", json={"data": {"notes": "x"}}, headers={"If-Match": '"2"'}
    )
    assert problem(failed) == (412, "precondition_failed")
    assert (await api.get(f"/bookings/drafts/{draft['id']}")).json()["data"] == {"notes": "theirs"}


async def test_a_save_that_comes_late_or_twice_changes_nothing(api: httpx.AsyncClient) -> None:
    draft = await begin(api, {"notes": "a"}, client_id="tab-1", seq=1)
    third = await save(api, draft, {"notes": "c"}, client_id="tab-1", seq=3, step=2)
    assert (third["applied"], third["version"], third["step"]) == (True, 2, 2)
    for seq in (1, 2, 3):
        late = await save(api, draft, {"notes": "b"}, client_id="tab-1", seq=seq, step=9)
        assert late == {**third, "applied": False}
    other = await save(api, draft, {"notes": "d"}, client_id="tab-2", seq=1)
    assert (other["applied"], other["data"]) == (True, {"notes": "d"})


async def test_a_retry_of_a_save_that_named_its_version_is_told_that_it_is_in(
    api: httpx.AsyncClient,
) -> None:
    draft = await begin(api)
    body = {"client_id": "tab-1", "seq": 1, "version": 1}
    first = await save(api, draft, {"notes": "a"}, **body)
    assert first["version"] == 2
    assert await save(api, draft, {"notes": "a"}, **body) == {**first, "applied": False}


async def test_a_draft_remembers_the_twenty_clients_that_saved_last(api: httpx.AsyncClient) -> None:
    draft = await begin(api)
    for n in range(21):
        await save(api, draft, {"notes": str(n)}, client_id=f"tab-{n}", seq=5)
    assert (await save(api, draft, {"notes": "late"}, client_id="tab-1", seq=4))["applied"] is False
    assert (await save(api, draft, {"notes": "back"}, client_id="tab-0", seq=4))["applied"] is True


@pytest.mark.parametrize(
    "fields", [{"client_id": "tab-1"}, {"seq": 1}, {"client_id": "", "seq": 1}, {"client_id": "t", "seq": -1}]
)
async def test_client_and_sequence_come_together(api: httpx.AsyncClient, fields: dict[str, Any]) -> None:
    assert problem(await api.post("/bookings/drafts", json=fields)) == (422, "validation_failed")


async def test_a_draft_becomes_a_booking_and_is_gone(api: httpx.AsyncClient) -> None:
    draft = await begin(api, shipment(reference="PO-1"))
    answer = await api.post(f"/bookings/drafts/{draft['id']}/submit")
    assert answer.status_code == 201, answer.text
    booking = answer.json()
    assert (booking["status"], booking["draft_id"], booking["reference"]) == ("booked", draft["id"], "PO-1")
    assert answer.headers["location"] == f"/api/v1/bookings/{booking['id']}"
    assert (await api.get(f"/bookings/{booking['id']}")).json() == booking
    assert problem(await api.get(f"/bookings/drafts/{draft['id']}")) == (404, "not_found")
    assert problem(await api.get(f"/sessions/{draft['id']}")) == (404, "not_found")
    assert (await api.get("/bookings/drafts")).json()["items"] == []


async def test_whoever_submits_again_gets_the_first_answer_again(api: httpx.AsyncClient) -> None:
    draft = await begin(api, shipment())
    path = f"/bookings/drafts/{draft['id']}/submit"
    first = await api.post(path)
    await api.post(f"/bookings/{first.json()['id']}/cancel")
    again = await api.post(path)
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["etag"] == first.headers["etag"]
    assert len((await api.get("/bookings")).json()["items"]) == 1


async def test_who_saves_or_deletes_after_the_submit_is_told_that_it_is_too_late(
    api: httpx.AsyncClient,
) -> None:
    draft = await begin(api, shipment())
    booking = (await api.post(f"/bookings/drafts/{draft['id']}/submit")).json()
    late = await api.patch(f"/bookings/drafts/{draft['id']}", json={"data": {"notes": "late"}})
    for answer in (late, await api.delete(f"/bookings/drafts/{draft['id']}")):
        assert problem(answer) == (409, "draft_submitted")
        assert answer.json()["booking_id"] == booking["id"]


async def test_what_is_not_complete_is_refused_by_every_field_and_stays_a_draft(
    api: httpx.AsyncClient,
) -> None:
    draft = await begin(api, shipment(pickup={"city": "Hamburg"}, cargo={"weight_kg": 0}, equipment=None))
    refused = await api.post(f"/bookings/drafts/{draft['id']}/submit")
    assert wrong_fields(refused) == {
        "pickup.contact_name", "pickup.line1", "pickup.postal_code", "pickup.country", "pickup.phone",
        "cargo.description", "cargo.weight_kg", "cargo.pieces", "equipment",
    }  # fmt: skip
    assert (await api.get(f"/bookings/drafts/{draft['id']}")).json() == draft
    for changes, field in (
        ({"payment": "credit"}, "payment"),
        ({"pickup": {"address_id": "adr_x"}}, "pickup.address_id"),
        ({"pickup_at": in_days(-2)}, "pickup_at"),
    ):
        draft = await begin(api, shipment(**changes))
        assert wrong_fields(await api.post(f"/bookings/drafts/{draft['id']}/submit")) == {field}
        assert (await api.get(f"/bookings/drafts/{draft['id']}")).json() == draft
    assert (await api.get("/bookings")).json()["items"] == []


async def test_an_entry_of_the_address_book_counts_alone(api: httpx.AsyncClient) -> None:
    entry = (await api.post("/addresses", json={**HAMBURG, "label": "Warehouse"})).json()
    draft = await begin(api, shipment())
    await save(api, draft, {"pickup": {"address_id": entry["id"], "city": "typed before"}})
    booking = (await api.post(f"/bookings/drafts/{draft['id']}/submit")).json()
    assert booking["pickup"]["address_id"] == entry["id"]
    assert booking["pickup"]["city"] == "Hamburg"


async def test_a_submit_may_name_the_version_that_was_seen(api: httpx.AsyncClient) -> None:
    draft = await begin(api, shipment())
    path = f"/bookings/drafts/{draft['id']}/submit"
    await save(api, draft, {"notes": "another tab"})
    assert problem(await api.post(path, json={"version": 1})) == (409, "version_conflict")
    assert problem(await api.post(path, headers={"If-Match": '"1"'})) == (412, "precondition_failed")
    assert (await api.post(path, json={"version": 2})).status_code == 201


async def test_anothers_draft_does_not_exist_not_even_for_an_admin(
    api: httpx.AsyncClient, app_kit: StateKit, me: Person
) -> None:
    draft = await begin(api, shipment())
    admin = await log_in(app_kit, await new_account(app_kit, role="admin", tenant_id=me.account.tenant_id))
    for person in (admin, await new_person(app_kit, role="shipper")):
        headers = {**person.headers, "X-Request-ID": "the-same"}
        for method, tail in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/submit")):
            body = {} if method == "PATCH" else None
            there, nowhere = [
                await api.request(method, f"/bookings/drafts/{draft_id}{tail}", json=body, headers=headers)
                for draft_id in (draft["id"], new_id("ses"))
            ]
            assert (there.status_code, there.content) == (404, nowhere.content)
        assert (await api.get("/bookings/drafts", headers=headers)).json()["items"] == []
    booking = (await api.post(f"/bookings/drafts/{draft['id']}/submit")).json()
    late = await api.post(f"/bookings/drafts/{draft['id']}/submit", headers=admin.headers)
    assert problem(late) == (404, "not_found")
    assert booking["draft_id"] == draft["id"]


async def test_a_session_of_another_type_is_no_draft(api: httpx.AsyncClient) -> None:
    cart = (await api.post("/sessions", json={"type": "cart", "data": {}})).json()
    path = f"/bookings/drafts/{cart['id']}"
    for answer in (
        await api.get(path),
        await api.patch(path, json={}),
        await api.delete(path),
        await api.post(f"{path}/submit"),
    ):
        assert problem(answer) == (404, "not_found")
    assert (await api.get(f"/sessions/{cart['id']}")).json()["version"] == 1


async def test_sessions_show_a_draft_and_do_not_write_it(api: httpx.AsyncClient) -> None:
    draft = await begin(api, {"notes": "a"}, step=2, client_id="tab-1", seq=7)
    (session,) = (await api.get("/sessions", params={"type": "booking_draft"})).json()["items"]
    assert (session["id"], session["data"]["form"], session["data"]["step"]) == (
        draft["id"],
        {"notes": "a"},
        2,
    )
    for method in ("PUT", "PATCH"):
        refused = await api.request(method, f"/sessions/{draft['id']}", json={"data": {}})
        assert wrong_fields(refused) == {"type"}
    assert wrong_fields(await api.delete(f"/sessions/{draft['id']}")) == {"type"}


async def test_a_deleted_draft_is_gone(api: httpx.AsyncClient) -> None:
    draft = await begin(api, shipment())
    path = f"/bookings/drafts/{draft['id']}"
    assert (await api.delete(path)).status_code == 204
    for answer in (await api.get(path), await api.patch(path, json={}), await api.post(f"{path}/submit")):
        assert problem(answer) == (404, "not_found")


async def test_there_may_be_a_hundred_drafts(api: httpx.AsyncClient) -> None:
    for _ in range(100):
        await begin(api)
    assert problem(await api.post("/bookings/drafts", json={})) == (422, "session_limit")
