"""What follows from a booking follows, though the request that made it died."""

import asyncio
from contextlib import suppress

import pytest

from app.core.errors import NotFoundError
from app.features.bookings import drafts, service
from app.features.bookings.forms import Save
from app.features.bookings.jobs import COLLECTION, FOLLOW_UP, handlers
from app.features.bookings.schemas import NewBooking
from app.features.bookings.store import BookingStore
from app.state.jobs import Jobs
from app.state.kit import StateKit
from app.state.mongo import Document
from tests.features.bookings.callers import new_caller
from tests.features.bookings.shipments import shipment
from tests.state.working import until_over, working


async def jobs_of(kit: StateKit, booking: Document) -> list[Document]:
    return [row async for row in kit.mongo.collection("jobs").find({"payload.booking_id": booking["_id"]})]


async def outbox_of(kit: StateKit, booking: Document) -> list[Document]:
    found = await kit.mongo.collection(COLLECTION).find_one({"_id": booking["_id"]})
    assert found is not None
    outbox: list[Document] = found["outbox"]
    return outbox


async def test_a_booking_has_its_job_from_the_start_and_one_only(kit: StateKit) -> None:
    me = await new_caller(kit)
    booking = await service.book(kit, me, NewBooking.model_validate(shipment()))
    draft = await drafts.create(kit, me, Save(shipment()))
    from_draft = await drafts.submit(kit, me, draft.id)
    for made, draft_id in ((booking, None), (from_draft, draft.id)):
        (job,) = await jobs_of(kit, made)
        assert (job["type"], job["tenant_id"], job["user_id"]) == (FOLLOW_UP, me.tenant_id, me.user_id)
        assert job["payload"] == {"booking_id": made["_id"], "draft_id": draft_id}
        assert await outbox_of(kit, made) == []
    async with working(kit, *handlers(kit), outboxes=(COLLECTION,)):
        (job,) = await jobs_of(kit, from_draft)
        done = await until_over(kit, job["_id"], me.tenant_id)
    assert done.result == {"booking_id": from_draft["_id"], "draft_removed": False}


async def test_a_request_that_died_after_the_insert_is_finished_by_a_worker(
    kit: StateKit, other_kit: StateKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It died so soon that it neither removed the draft nor emptied the outbox."""
    me = await new_caller(kit)
    draft = await drafts.create(kit, me, Save(shipment()))

    async def die(*_: object) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as patched:
        patched.setattr(Jobs, "relay", die)
        with suppress(asyncio.CancelledError):
            await drafts.submit(kit, me, draft.id)
    booking = await BookingStore(kit).get_by_draft(me, draft.id)
    (left,) = await outbox_of(kit, booking)
    assert (await drafts.read(other_kit, me, draft.id)).form.places is not None
    async with working(other_kit, *handlers(other_kit), outboxes=(COLLECTION,)):
        done = await until_over(other_kit, left["_id"], me.tenant_id)
    assert done.result == {"booking_id": booking["_id"], "draft_removed": True}
    assert await outbox_of(kit, booking) == []
    with pytest.raises(NotFoundError):
        await drafts.read(kit, me, draft.id)
