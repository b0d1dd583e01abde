"""Bookings with an `Idempotency-Key`: one effect, and the first answer again."""

import asyncio
from typing import Any

import httpx
import pytest

from app.features.bookings import drafts
from app.features.bookings.forms import Save
from app.state.keyed import Answer, Keyed, KeyReusedError
from app.state.kit import StateKit
from app.state.mongo import Document
from tests.features.answers import problem, wrong_fields
from tests.features.bookings.callers import new_caller
from tests.features.bookings.shipments import HAMBURG, book, shipment
from tests.state.people import Person

KEY = {"Idempotency-Key": "k-1"}
REPLAYED = "idempotent-replayed"


async def begin(api: httpx.AsyncClient, **changes: Any) -> str:
    draft = await api.post("/bookings/drafts", json={"data": shipment(**changes)})
    path: str = f"/bookings/drafts/{draft.json()['id']}/submit"
    return path


async def count(api: httpx.AsyncClient) -> int:
    return len((await api.get("/bookings", params={"limit": 100})).json()["items"])


async def test_a_booking_that_is_sent_twice_is_made_once(api: httpx.AsyncClient) -> None:
    body = shipment()
    first = await api.post("/bookings", json=body, headers=KEY)
    assert (first.status_code, REPLAYED in first.headers) == (201, False)
    await api.post(f"/bookings/{first.json()['id']}/cancel")
    again = await api.post("/bookings", json=body, headers=KEY)
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers[REPLAYED] == "true"
    for name in ("location", "etag"):
        assert again.headers[name] == first.headers[name]
    assert await count(api) == 1
    other = await api.post("/bookings", json={**body, "notes": "another"}, headers=KEY)
    assert problem(other) == (422, "idempotency_key_reused")
    assert await count(api) == 1


async def test_a_booking_that_is_cancelled_twice_with_one_key_gets_the_first_answer_again(
    api: httpx.AsyncClient,
) -> None:
    path = f"/bookings/{(await book(api))['id']}"
    answers = await asyncio.gather(*(api.post(f"{path}/cancel", headers=KEY) for _ in range(10)))
    assert {(answer.status_code, answer.content) for answer in answers} == {(200, answers[0].content)}
    assert sum(REPLAYED in answer.headers for answer in answers) == 9
    assert {answer.headers["etag"] for answer in answers} == {'"2"'}
    events = (await api.get(f"{path}/events")).json()["items"]
    assert [event["status"] for event in events] == ["booked", "cancelled"]
    assert problem(await api.post(f"{path}/cancel")) == (409, "invalid_transition")
    other = await api.post(f"/bookings/{(await book(api))['id']}/cancel", headers=KEY)
    assert problem(other) == (422, "idempotency_key_reused")


async def test_a_step_that_is_refused_can_be_tried_again_with_its_key(
    api: httpx.AsyncClient, dispatcher: Person
) -> None:
    path = f"/bookings/{(await book(api))['id']}/status"
    headers = {**dispatcher.headers, **KEY}
    refused = await api.post(path, json={"status": "picked_up"}, headers=headers)
    assert problem(refused) == (409, "invalid_transition")
    assigned = await api.post(path, json={"status": "assigned"}, headers=dispatcher.headers)
    assert assigned.status_code == 200
    taken = await api.post(path, json={"status": "picked_up"}, headers=headers)
    assert (taken.status_code, taken.json()["status"]) == (200, "picked_up")
    again = await api.post(path, json={"status": "picked_up"}, headers=headers)
    assert (again.status_code, again.content, again.headers[REPLAYED]) == (200, taken.content, "true")


async def test_a_draft_that_is_submitted_twice_is_booked_once_though_it_is_gone(
    api: httpx.AsyncClient,
) -> None:
    path = await begin(api)
    first = await api.post(path, headers=KEY)
    again = await api.post(path, headers=KEY)
    assert (again.status_code, again.content, again.headers[REPLAYED]) == (201, first.content, "true")
    without = await api.post(path)
    assert (without.status_code, without.content) == (201, first.content)
    other = await api.post(await begin(api), headers=KEY)
    assert problem(other) == (422, "idempotency_key_reused")
    assert await count(api) == 1


@pytest.mark.settings(limit_booking="1000/hour")
async def test_a_hundred_submits_at_once_with_and_without_one_key_make_one_booking(
    api: httpx.AsyncClient,
) -> None:
    path = await begin(api)
    answers = await asyncio.gather(*(api.post(path, headers=KEY if n % 2 else {}) for n in range(100)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert await count(api) == 1


@pytest.mark.settings(limit_booking="10/hour")
async def test_of_many_at_once_as_many_are_booked_as_the_limit_says(api: httpx.AsyncClient) -> None:
    body = shipment()
    answers = await asyncio.gather(*(api.post("/bookings", json=body) for _ in range(30)))
    assert sorted(answer.status_code for answer in answers) == [201] * 10 + [429] * 20
    assert await count(api) == 10


@pytest.mark.settings(limit_booking="2/hour", redis_timeout_s=10)
async def test_a_hundred_twins_at_once_count_once_and_all_get_the_answer(api: httpx.AsyncClient) -> None:
    path = await begin(api)
    answers = await asyncio.gather(*(api.post(path, headers=KEY) for _ in range(100)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    await book(api)
    assert problem(await api.post("/bookings", json=shipment())) == (429, "rate_limited")
    assert await count(api) == 2


@pytest.mark.settings(limit_booking="2/hour")
async def test_a_replay_costs_no_limit_and_works_when_it_is_used_up(api: httpx.AsyncClient) -> None:
    body = shipment()
    first = await api.post("/bookings", json=body, headers=KEY)
    for _ in range(5):
        assert (await api.post("/bookings", json=body, headers=KEY)).content == first.content
    await book(api)
    assert problem(await api.post("/bookings", json=body)) == (429, "rate_limited")
    again = await api.post("/bookings", json=body, headers=KEY)
    assert (again.status_code, again.content) == (201, first.content)


async def test_what_was_refused_is_not_remembered(api: httpx.AsyncClient) -> None:
    path = await begin(api, equipment=None)
    assert wrong_fields(await api.post(path, headers=KEY)) == {"equipment"}
    draft = path.removesuffix("/submit")
    await api.patch(draft, json={"data": {"equipment": "reefer"}})
    made = await api.post(path, headers=KEY)
    assert (made.status_code, REPLAYED in made.headers) == (201, False)


async def test_drafts_and_addresses_are_made_once_too(api: httpx.AsyncClient) -> None:
    for path, body in (
        ("/bookings/drafts", {"data": {"notes": "a"}}),
        ("/addresses", {**HAMBURG, "label": "Office"}),
        ("/addresses", {**HAMBURG, "label": "Warehouse", "is_default": True}),
    ):
        headers = {"Idempotency-Key": str(body.get("label", "draft"))}
        first, again = [await api.post(path, json=body, headers=headers) for _ in range(2)]
        assert (again.status_code, again.content, again.headers[REPLAYED]) == (201, first.content, "true")
    assert len((await api.get("/bookings/drafts")).json()["items"]) == 1
    assert len((await api.get("/addresses")).json()["items"]) == 2


async def test_a_draft_whose_key_turns_out_to_be_anothers_is_open_again(kit: StateKit) -> None:
    """Two drafts submitted at once with one key: the second learns of the first when it is closed already."""
    me = await new_caller(kit)

    def keyed(body: bytes) -> Keyed[Document]:
        answer = Answer(201, b"{}")
        return Keyed(kit.idempotency.claim("the-key", body), lambda _: answer)

    first = await drafts.create(kit, me, Save(shipment()))
    await drafts.submit(kit, me, first.id, keyed=keyed(b"first"))
    second = await drafts.create(kit, me, Save(shipment()))
    with pytest.raises(KeyReusedError):
        await drafts.submit(kit, me, second.id, keyed=keyed(b"second"))
    assert (await drafts.read(kit, me, second.id)).form.places is None
    booking = await drafts.submit(kit, me, second.id)
    assert booking["draft_id"] == second.id
