"""Bookings over HTTP, one rule at a time."""

from typing import Any

import httpx
import pytest

from app.core.ids import new_id
from app.features.bookings.numbers import read_number
from app.http.paging import encode_cursor
from app.state.kit import StateKit
from tests.features.answers import problem, wrong_fields
from tests.features.bookings.shipments import HAMBURG, ROTTERDAM, book, in_days, shipment
from tests.state.people import Person, log_in, new_account, new_person

REQUIRED = ("contact_name", "line1", "city", "postal_code", "country", "phone")
FORWARD = ("assigned", "picked_up", "in_transit", "delivered", "closed")


async def test_a_booking_is_made_read_and_listed(api: httpx.AsyncClient, me: Person) -> None:
    answer = await api.post("/bookings", json=shipment(reference="PO-4711", notes="Ring twice"))
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert answer.headers["etag"] == '"1"'
    assert answer.headers["location"] == f"/api/v1/bookings/{made['id']}"
    assert (made["status"], made["version"], made["payment"]) == ("booked", 1, "prepaid")
    assert (made["reference"], made["notes"], made["user_id"]) == ("PO-4711", "Ring twice", me.account.id)
    assert read_number(made["number"]) == made["number"]
    assert made["price"]["currency"] == "EUR"
    assert made["price"]["amount_minor"] == sum(
        line["amount"]["amount_minor"] for line in made["price_lines"]
    )
    assert made["pickup"] == {**HAMBURG, "address_id": None, "label": None, "line2": None, "region": None}
    found = await api.get(f"/bookings/{made['id']}")
    assert (found.json(), found.headers["etag"]) == (made, '"1"')
    assert (await api.get("/bookings")).json() == {"items": [made], "next_cursor": None}
    events = (await api.get(f"/bookings/{made['id']}/events")).json()
    assert events["next_cursor"] is None
    (event,) = events["items"]
    assert (event["status"], event["at"], event["note"]) == ("booked", made["created_at"], None)
    assert event["actor"] == {"user_id": me.account.id, "name": me.account.name, "role": "shipper"}


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"pickup": {}}, {f"pickup.{name}" for name in REQUIRED}),
        ({"pickup": None, "delivery": 7}, {"pickup", "delivery"}),
        ({"cargo": {"weight_kg": 0}}, {"cargo.description", "cargo.weight_kg", "cargo.pieces"}),
        ({"cargo": {"description": "x", "weight_kg": "8", "pieces": 1}}, {"cargo.weight_kg"}),
        ({"cargo": {"description": "x", "weight_kg": 8, "pieces": 1.5}}, {"cargo.pieces"}),
        ({"equipment": "submarine"}, {"equipment"}),
        ({"pickup_at": in_days(-1)}, {"pickup_at"}),
        ({"pickup_at": in_days(400)}, {"pickup_at"}),
        ({"pickup_at": "2026-01-31T10:00:00"}, {"pickup_at"}),
        ({"pickup_at": 1795654566}, {"pickup_at"}),
        ({"payment": "credit"}, {"payment"}),
        ({"payment": "later"}, {"payment"}),
        ({"declared_value": {"amount_minor": 0, "currency": "EUR"}}, {"declared_value.amount_minor"}),
        ({"declared_value": {"amount_minor": 5, "currency": "XYZ"}}, {"declared_value.currency"}),
        ({"pickup": {"address_id": "adr_nothing"}}, {"pickup.address_id"}),
        ({"pickup": {"address_id": "adr_x", "city": "Hamburg"}}, {"pickup.city"}),
        ({"pickup": {**HAMBURG, "location": None, "city": "Kleinkleckersdorf"}}, {"pickup.location"}),
        ({"status": "delivered"}, {"status"}),
        (
            {"pickup_at": in_days(-1), "payment": "credit", "delivery": {"address_id": "x"}},
            {"pickup_at", "delivery.address_id"},  # whether credit suffices is asked when there is a price
        ),
    ],
)  # fmt: skip
async def test_what_can_not_be_booked_is_refused_by_every_field_and_changes_nothing(
    api: httpx.AsyncClient, changes: dict[str, Any], fields: set[str]
) -> None:
    assert wrong_fields(await api.post("/bookings", json=shipment(**changes))) == fields
    assert (await api.get("/bookings")).json()["items"] == []


async def test_an_entry_of_the_address_book_is_copied(api: httpx.AsyncClient) -> None:
    entry = (await api.post("/addresses", json={**HAMBURG, "label": "Warehouse"})).json()
    made = await book(api, pickup={"address_id": entry["id"]})
    assert made["pickup"]["address_id"] == entry["id"]
    assert (made["pickup"]["label"], made["pickup"]["city"]) == ("Warehouse", "Hamburg")
    await api.patch(f"/addresses/{entry['id']}", json={"city": "Kiel", "line1": "Elsewhere 1"})
    await api.delete(f"/addresses/{entry['id']}")
    assert (await api.get(f"/bookings/{made['id']}")).json() == made


async def test_anothers_address_can_not_be_used(api: httpx.AsyncClient, dispatcher: Person) -> None:
    entry = await api.post("/addresses", json={**HAMBURG, "label": "x"}, headers=dispatcher.headers)
    body = shipment(pickup={"address_id": entry.json()["id"]})
    assert wrong_fields(await api.post("/bookings", json=body)) == {"pickup.address_id"}


async def test_a_city_without_coordinates_is_looked_up(api: httpx.AsyncClient) -> None:
    made = await book(api, pickup={**HAMBURG, "location": None})
    assert (round(made["pickup"]["location"]["lat"]), round(made["pickup"]["location"]["lon"])) == (54, 10)


async def test_a_quote_is_what_the_booking_then_costs(api: httpx.AsyncClient) -> None:
    body = shipment(cargo={"description": "Paint", "weight_kg": 6100.5, "pieces": 3, "hazardous": True})
    quoted = await api.post("/quotes", json=body)
    assert quoted.status_code == 200, quoted.text
    made = (await api.post("/bookings", json=body)).json()
    for name in ("price", "price_lines", "distance_km"):
        assert made[name] == quoted.json()[name]
    assert [line["code"] for line in made["price_lines"]] == ["base", "linehaul", "weight", "hazard"]


async def test_a_quote_asks_for_no_more_than_it_needs(api: httpx.AsyncClient) -> None:
    bare = {
        "pickup": {"city": "Hamburg", "country": "DE"},
        "delivery": {"location": {"lat": 51.9, "lon": 4.5}},
        "cargo": {"weight_kg": 8400},
        "equipment": "reefer",
    }
    quoted = await api.post("/quotes", json=bare)
    assert quoted.status_code == 200, quoted.text
    assert quoted.json()["distance_km"] == 413
    for changes, fields in (
        ({"pickup": {"city": "Hamburg"}}, {"pickup"}),
        ({"pickup": {"city": "Hamburgg", "country": "DE"}}, {"pickup.location"}),
        ({"delivery": {"location": {"lat": 51.9}}}, {"delivery"}),
        ({"cargo": {}}, {"cargo.weight_kg"}),
        ({"pickup_at": in_days(-1)}, {"pickup_at"}),
        ({"delivery": {"address_id": "adr_x"}}, {"delivery.address_id"}),
    ):
        assert wrong_fields(await api.post("/quotes", json={**bare, **changes})) == fields


async def test_prices_are_in_the_currency_of_the_tenant(
    api: httpx.AsyncClient, app_kit: StateKit, me: Person
) -> None:
    await app_kit.tenants.change(me.account.tenant_id, {"currency": "JPY"})
    made = await book(api)
    assert {made["price"]["currency"], *(line["amount"]["currency"] for line in made["price_lines"])} == {
        "JPY"
    }


async def test_staff_move_a_booking_through_its_whole_life(
    api: httpx.AsyncClient, dispatcher: Person
) -> None:
    made = await book(api)
    path = f"/bookings/{made['id']}"
    for version, status in enumerate(FORWARD, start=2):
        body = {"status": status, "note": f"now {status}"}
        answer = await api.post(f"{path}/status", json=body, headers=dispatcher.headers)
        assert answer.status_code == 200, answer.text
        assert (answer.json()["status"], answer.json()["version"]) == (status, version)
        assert answer.headers["etag"] == f'"{version}"'
    events = (await api.get(f"{path}/events")).json()["items"]
    assert [event["status"] for event in events] == ["booked", *FORWARD]
    assert [event["note"] for event in events[1:]] == [f"now {status}" for status in FORWARD]
    assert {event["actor"]["user_id"] for event in events[1:]} == {dispatcher.account.id}
    assert len({event["id"] for event in events}) == 6
    assert sorted(events, key=lambda event: event["at"]) == events


async def test_a_transition_that_is_not_allowed_says_what_is(
    api: httpx.AsyncClient, dispatcher: Person
) -> None:
    made = await book(api)
    path = f"/bookings/{made['id']}"
    refused = await api.post(f"{path}/status", json={"status": "delivered"}, headers=dispatcher.headers)
    assert problem(refused) == (409, "invalid_transition")
    assert refused.json()["current_status"] == "booked"
    assert refused.json()["allowed"] == ["assigned", "cancelled"]
    assert (await api.get(path)).json() == made


async def test_an_owner_cancels_until_pick_up(api: httpx.AsyncClient, dispatcher: Person) -> None:
    early, late = await book(api), await book(api)
    for status in ("assigned", "picked_up"):
        for made in (late, *((early,) if status == "assigned" else ())):
            await api.post(
                f"/bookings/{made['id']}/status", json={"status": status}, headers=dispatcher.headers
            )
    cancelled = await api.post(f"/bookings/{early['id']}/cancel", json={"note": "Changed my mind"})
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    for made, current in ((late, "picked_up"), (early, "cancelled")):
        refused = await api.post(f"/bookings/{made['id']}/cancel")
        assert problem(refused) == (409, "invalid_transition")
        assert (refused.json()["current_status"], refused.json()["allowed"]) == (current, [])


async def test_conditions_are_checked_before_the_transition(
    api: httpx.AsyncClient, dispatcher: Person
) -> None:
    path = f"/bookings/{(await book(api))['id']}/status"
    impossible = {"status": "closed", "version": 7}
    headers = dispatcher.headers
    first = await api.post(path, json=impossible, headers={**headers, "If-Match": '"9"'})
    assert problem(first) == (412, "precondition_failed")
    second = await api.post(path, json=impossible, headers=headers)
    assert (problem(second), second.json()["current_version"]) == ((409, "version_conflict"), 1)
    third = await api.post(path, json={"status": "closed", "version": 1}, headers=headers)
    assert problem(third) == (409, "invalid_transition")


async def test_who_may_not_see_a_booking_gets_what_one_that_never_existed_gives(
    api: httpx.AsyncClient, app_kit: StateKit, me: Person, dispatcher: Person
) -> None:
    made = await book(api)
    tenant_id = me.account.tenant_id
    colleagues = {
        role: await log_in(app_kit, await new_account(app_kit, role=role, tenant_id=tenant_id))
        for role in ("shipper", "driver", "underwriter", "admin")
    }
    outsiders = [
        colleagues["shipper"],
        colleagues["driver"],
        colleagues["underwriter"],
        await new_person(app_kit, role="admin"),
    ]
    for person in outsiders:
        headers = {**person.headers, "X-Request-ID": "the-same"}
        for method, tail in (("GET", ""), ("GET", "/events"), ("POST", "/cancel")):
            there, nowhere = [
                await api.request(method, f"/bookings/{booking_id}{tail}", headers=headers)
                for booking_id in (made["id"], new_id("bkg"))
            ]
            assert (there.status_code, there.content) == (404, nowhere.content)
        assert (await api.get("/bookings", headers=headers)).json()["items"] == []
        found = await api.get("/bookings", params={"number": made["number"]}, headers=headers)
        assert found.json()["items"] == []
    stranger = outsiders[-1].headers
    moved = await api.post(f"/bookings/{made['id']}/status", json={"status": "assigned"}, headers=stranger)
    assert problem(moved) == (404, "not_found")
    for person in (dispatcher, colleagues["admin"]):
        assert (await api.get(f"/bookings/{made['id']}", headers=person.headers)).json() == made


@pytest.mark.parametrize("role", ["driver", "underwriter"])
async def test_only_shippers_and_staff_book(api: httpx.AsyncClient, app_kit: StateKit, role: Any) -> None:
    person = await new_person(app_kit, role=role)
    for path in ("/bookings", "/quotes"):
        assert problem(await api.post(path, json=shipment(), headers=person.headers)) == (403, "forbidden")


async def test_bookings_are_found_by_status_number_and_reference(
    api: httpx.AsyncClient, dispatcher: Person
) -> None:
    first = await book(api, reference="PO-4711")
    second = await book(api, reference="po-4711 ")
    third = await book(api)
    await api.post(f"/bookings/{third['id']}/cancel")

    async def ids(**params: str) -> list[str]:
        answer = await api.get("/bookings", params=params)
        assert answer.status_code == 200, answer.text
        return [item["id"] for item in answer.json()["items"]]

    assert await ids(status="cancelled") == [third["id"]]
    assert await ids(status="booked") == [second["id"], first["id"]]
    assert await ids(number=first["number"]) == [first["id"]]
    assert await ids(number=first["number"].lower().replace("-", "")) == [first["id"]]
    assert await ids(number="BK-0000-0001") == []
    assert await ids(number="nonsense") == []
    assert await ids(reference=" Po-4711") == [second["id"], first["id"]]
    assert await ids(reference="PO-4711", status="cancelled") == []
    listed = await api.get("/bookings", params={"reference": "PO-4711"}, headers=dispatcher.headers)
    assert len(listed.json()["items"]) == 2
    assert wrong_fields(await api.get("/bookings", params={"status": "lost"})) == {"status"}


async def test_pages_show_everything_once_whatever_is_booked_meanwhile(api: httpx.AsyncClient) -> None:
    made = [(await book(api))["id"] for _ in range(5)]
    seen: list[str] = []
    cursor = None
    while True:
        params = {"limit": "2"} if cursor is None else {"limit": "2", "cursor": cursor}
        page = (await api.get("/bookings", params=params)).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        await book(api)
    assert seen == made[::-1]


@pytest.mark.settings(limit_booking="3/hour")
async def test_bookings_and_submits_are_counted_together(api: httpx.AsyncClient) -> None:
    for _ in range(2):
        await book(api)
    refused = wrong_fields(await api.post("/bookings", json={}))
    assert "cargo" in refused
    draft = (await api.post("/bookings/drafts", json={"data": shipment()})).json()
    limited = await api.post(f"/bookings/drafts/{draft['id']}/submit")
    assert problem(limited) == (429, "rate_limited")
    assert (await api.get("/bookings")).status_code == 200
    assert (await api.get(f"/bookings/drafts/{draft['id']}")).status_code == 200


async def test_a_number_that_is_taken_is_drawn_again(
    api: httpx.AsyncClient, app_kit: StateKit, me: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = (await book(api))["number"]
    monkeypatch.setattr("app.features.bookings.service.new_number", lambda: taken)
    assert (await book(api))["number"] != taken
    stranger = await new_person(app_kit, role="shipper")
    other = await api.post("/bookings", json=shipment(delivery=ROTTERDAM), headers=stranger.headers)
    assert other.json()["number"] == taken


@pytest.mark.parametrize("milliseconds", [-(2**63), 0, 253402300799999, 2**63])
async def test_a_cursor_that_was_made_up_is_a_page_like_any_other(
    api: httpx.AsyncClient, milliseconds: int
) -> None:
    cursor = encode_cursor("bookings", (milliseconds, "bkg_"))
    answer = await api.get("/bookings", params={"cursor": cursor})
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"items": [], "next_cursor": None}
