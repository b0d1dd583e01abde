"""Lists and quotes come out of the cache, and never show what is not so any more."""

from typing import Any

import httpx

from app.state.kit import StateKit
from tests.features.bookings.shipments import book, shipment
from tests.state.people import Person, log_in, new_account


async def listed(
    api: httpx.AsyncClient, person: Person | None = None, **params: str
) -> tuple[str, list[Any]]:
    """How the list was come by, and the status of each booking in it."""
    headers = {} if person is None else person.headers
    answer = await api.get("/bookings", params=params, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.headers["x-cache"], [item["status"] for item in answer.json()["items"]]


async def test_a_list_is_a_hit_until_something_in_it_changes(
    api: httpx.AsyncClient, dispatcher: Person
) -> None:
    made = await book(api)
    for person in (None, dispatcher):
        assert await listed(api, person) == ("MISS", ["booked"])
        assert await listed(api, person) == ("HIT", ["booked"])
    moved = {"status": "assigned"}
    await api.post(f"/bookings/{made['id']}/status", json=moved, headers=dispatcher.headers)
    for person in (None, dispatcher):
        assert await listed(api, person) == ("MISS", ["assigned"])
        assert await listed(api, person) == ("HIT", ["assigned"])
    draft = (await api.post("/bookings/drafts", json={"data": shipment()})).json()
    await api.post(f"/bookings/drafts/{draft['id']}/submit")
    for person in (None, dispatcher):
        assert await listed(api, person) == ("MISS", ["booked", "assigned"])
    await api.post(f"/bookings/{made['id']}/cancel")
    for person in (None, dispatcher):
        assert await listed(api, person) == ("MISS", ["booked", "cancelled"])


async def test_filters_pages_and_people_do_not_share_an_entry(
    api: httpx.AsyncClient, app_kit: StateKit, me: Person, dispatcher: Person
) -> None:
    made = await book(api, reference="PO-1")
    await book(api)
    other = await log_in(app_kit, await new_account(app_kit, role="shipper", tenant_id=me.account.tenant_id))
    assert await listed(api) == ("MISS", ["booked", "booked"])
    assert await listed(api, other) == ("MISS", [])
    assert await listed(api, dispatcher) == ("MISS", ["booked", "booked"])
    for params in ({"status": "closed"}, {"reference": "PO-2"}, {"number": "BK-0000-0000"}):
        assert await listed(api, None, **params) == ("MISS", [])
        assert await listed(api, None, **params) == ("HIT", [])
    for params in ({"limit": "1"}, {"reference": "po-1"}, {"number": made["number"]}):
        assert await listed(api, None, **params) == ("MISS", ["booked"])
    cursor = (await api.get("/bookings", params={"limit": "1"})).json()["next_cursor"]
    answer = await api.get("/bookings", params={"limit": "1", "cursor": cursor})
    assert answer.headers["x-cache"] == "MISS"
    assert [item["id"] for item in answer.json()["items"]] == [made["id"]]


async def test_a_booking_of_anothers_leaves_my_list_a_hit(
    api: httpx.AsyncClient, app_kit: StateKit, me: Person
) -> None:
    other = await log_in(app_kit, await new_account(app_kit, role="shipper", tenant_id=me.account.tenant_id))
    await book(api)
    await listed(api)
    made = await api.post("/bookings", json=shipment(), headers=other.headers)
    assert made.status_code == 201
    assert await listed(api) == ("HIT", ["booked"])


async def test_leaving_empties_ones_own_lists(api: httpx.AsyncClient, app_kit: StateKit, me: Person) -> None:
    await book(api)
    again = await log_in(app_kit, me.account)
    await listed(api, again)
    assert (await listed(api, again))[0] == "HIT"
    assert (await api.post("/auth/logout")).status_code == 204
    assert await listed(api, again) == ("MISS", ["booked"])


async def test_a_lane_that_was_asked_for_is_a_hit_for_everybody_of_the_tenant_and_in_its_currency(
    api: httpx.AsyncClient, app_kit: StateKit, me: Person, dispatcher: Person
) -> None:
    body = shipment()

    async def quoted(person: Person, **changes: Any) -> tuple[str, str, int]:
        answer = await api.post("/quotes", json={**body, **changes}, headers=person.headers)
        assert answer.status_code == 200, answer.text
        price = answer.json()["price"]
        return answer.headers["x-cache"], price["currency"], price["amount_minor"]

    first = await quoted(me)
    assert first[:2] == ("MISS", "EUR")
    assert await quoted(dispatcher) == ("HIT", *first[1:])
    assert (await quoted(me, equipment="reefer"))[0] == "MISS"
    assert (await quoted(me, cargo={"weight_kg": 8401}))[0] == "MISS"
    admin = await log_in(app_kit, await new_account(app_kit, role="admin", tenant_id=me.account.tenant_id))
    changed = await api.patch("/tenant", json={"currency": "USD"}, headers=admin.headers)
    assert changed.status_code == 200
    assert await quoted(dispatcher) == ("MISS", "USD", first[2])
