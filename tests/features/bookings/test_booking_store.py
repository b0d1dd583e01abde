"""Every query of bookings rides on an index, however many there are."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.features.bookings import drafts
from app.features.bookings.forms import Save
from app.features.bookings.store import BookingStore, Filters, scope_of
from app.state.kit import StateKit
from app.state.mongo import Document, one_page
from app.state.newest_first import between
from app.state.principals import Principal, Role
from tests.features.bookings.callers import new_caller
from tests.features.bookings.shipments import shipment

FILTERS = [
    Filters(),
    Filters(status="booked"),
    Filters(number="BK-0000-0000"),
    Filters(reference_key="po-1"),
    Filters(status="booked", reference_key="po-1"),
]
MANY = 120
AT_ONCE = 20


def stages(plan: Any) -> set[str]:
    """Every stage that a plan names, at whatever depth."""
    if isinstance(plan, dict):
        own = {plan["stage"]} if isinstance(plan.get("stage"), str) else set()
        return own.union(*map(stages, plan.values()))
    return set().union(*map(stages, plan)) if isinstance(plan, list) else set()


async def add_copies(kit: StateKit, booking: Document, count: int) -> None:
    """Bookings like this one, all of one tenant, some of them of others' users."""
    base = datetime.now(UTC) - timedelta(days=1)
    copies = [
        {
            **{name: value for name, value in booking.items() if name != "draft_id"},
            "_id": f"bkg_{n:022}",
            "number": f"BK-{n:04}-{n:04}",
            "user_id": booking["user_id"] if n % 3 else "usr_b",
            "created_at": base + timedelta(seconds=n),
        }
        for n in range(count)
    ]
    for first in range(0, count, AT_ONCE):  # so many take the engine well under the store's timeout
        await kit.mongo.collection("bookings").insert_many(copies[first : first + AT_ONCE])


@pytest.fixture
async def booked(kit: StateKit) -> tuple[Principal, Document]:
    me = await new_caller(kit)
    draft = await drafts.create(kit, me, Save(shipment(reference="PO-1")))
    await drafts.submit(kit, me, draft.id)
    booking = await BookingStore(kit).find_by_draft(me, draft.id)
    assert booking is not None
    await add_copies(kit, booking, MANY)
    return me, booking


@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("role", ["shipper", "dispatcher"])
async def test_a_list_rides_on_an_index(
    kit: StateKit, booked: tuple[Principal, Document], filters: Filters, role: Role
) -> None:
    me, booking = booked
    owned, also = filters.query(scope_of(replace(me, role=role)))
    after = (booking["created_at"], booking["_id"])
    window = between(after[0] - timedelta(days=1), after)
    finds_few = filters.number or filters.reference_key
    for within in ({},) if finds_few else ({}, window):
        pipeline = one_page({**owned, **within}, also=also, order=-1, after=after, limit=20)
        explained = await kit.mongo.database.command(
            {"explain": {"aggregate": "bookings", "pipeline": pipeline, "cursor": {}}}
        )
        assert "IXSCAN" in stages(explained)
        assert "COLLSCAN" not in stages(explained)


@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("role", ["shipper", "dispatcher"])
async def test_an_index_gives_the_list_in_its_order_or_one_booking(
    kit: StateKit, booked: tuple[Principal, Document], filters: Filters, role: Role
) -> None:
    """What a MongoDB needs to read no more than a page: equalities first, then the order of the list."""
    me, _ = booked
    owned, also = filters.query(scope_of(replace(me, role=role)))
    information = await kit.mongo.collection("bookings").index_information()
    in_order = [
        index
        for index in information.values()
        if {name for name, _ in index["key"][:-2]} == set(owned)
        and index["key"][-2:] == [("created_at", -1), ("_id", -1)]
    ]
    unique = [
        index
        for index in information.values()
        if index.get("unique") and {name for name, _ in index["key"]} == set(owned)
    ]
    assert in_order or unique
    assert {**owned, **also}.items() >= scope_of(replace(me, role=role)).items()


async def test_a_draft_finds_its_booking_by_an_index(
    kit: StateKit, booked: tuple[Principal, Document]
) -> None:
    _, booking = booked
    wanted = {"draft_id": booking["draft_id"]}
    explained = await kit.mongo.database.command({"explain": {"find": "bookings", "filter": wanted}})
    assert "IXSCAN" in stages(explained)
    assert explained["executionStats"]["totalDocsExamined"] == 1


async def test_a_draft_of_anothers_finds_nothing(kit: StateKit, booked: tuple[Principal, Document]) -> None:
    me, booking = booked
    store = BookingStore(kit)
    assert await store.find_by_draft(me, booking["draft_id"]) == booking
    for other in (replace(me, user_id="usr_b"), replace(me, tenant_id="ten_b")):
        assert await store.find_by_draft(other, booking["draft_id"]) is None


async def test_pages_of_a_long_list_are_those_of_its_owner_in_order(
    kit: StateKit, booked: tuple[Principal, Document]
) -> None:
    me, _ = booked
    store = BookingStore(kit)
    seen: list[Document] = []
    before = None
    while page := await store.page(me, Filters(), before=before, limit=50):
        seen += page
        before = (page[-1]["created_at"], page[-1]["_id"])
    assert len(seen) == MANY - MANY // 3 + 1
    assert {row["user_id"] for row in seen} == {me.user_id}
    assert seen == sorted(seen, key=lambda row: (row["created_at"], row["_id"]), reverse=True)
