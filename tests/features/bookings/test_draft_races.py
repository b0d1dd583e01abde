"""Drafts under several replicas at once: what was acknowledged is in, and a draft is booked once."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from app.core.errors import NotFoundError
from app.core.settings import Settings
from app.features.bookings import drafts, service
from app.features.bookings.errors import DraftSubmittedError
from app.features.bookings.forms import Draft, Save
from app.features.bookings.store import BookingStore
from app.http.etags import WriteCondition
from app.state.kit import StateKit, open_kit
from app.state.mongo import Document
from app.state.principals import Principal
from app.state.session_documents import Session
from tests.cluster.counts import full
from tests.features.bookings.callers import new_caller
from tests.features.bookings.shipments import shipment
from tests.waiting import held_by_one_task, until

REPLICAS = 3
ROUNDS = full(300, 30)
ANY = WriteCondition()


@pytest.fixture
async def kits(settings: Settings) -> AsyncIterator[list[StateKit]]:
    """As many replicas on the same stores."""
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(held_by_one_task(open_kit(settings))) for _ in range(REPLICAS)
        ]
        for kit in opened:
            await until(
                lambda kit=kit: kit.mongo.health.status == "pass" and kit.redis.health.status == "pass"
            )
        yield opened


@pytest.fixture
async def me(kits: list[StateKit]) -> Principal:
    return await new_caller(kits[0])


async def bookings_of(kit: StateKit, me: Principal) -> list[Document]:
    return [row async for row in kit.mongo.collection("bookings").find({"tenant_id": me.tenant_id})]


async def test_two_hundred_saves_shuffled_and_partly_twice_end_as_the_last_one(
    kits: list[StateKit], me: Principal
) -> None:
    """Each save holds every field changed since the last acknowledged one: none is, so all."""
    draft = await drafts.create(kits[0], me, Save({}))
    typed: dict[str, Any] = {}
    saves = []
    for seq in range(200):
        typed = {**typed, "notes": f"n{seq}", "pickup": {**typed.get("pickup", {}), "city": f"c{seq}"}}
        if seq % 7 == 0:
            typed["reference"] = f"r{seq}"
        saves.append(Save(typed, step=seq % 5, client_id="phone", seq=seq))
    sent = saves + random.sample(saves, 60)
    random.shuffle(sent)
    answers = await asyncio.gather(
        *(drafts.save(kits[n % REPLICAS], me, draft.id, save, ANY) for n, save in enumerate(sent))
    )
    applied = sum(was_applied for _, was_applied in answers)
    for kit in kits:
        found = await drafts.read(kit, me, draft.id)
        assert (found.form.data, found.form.step) == (typed, 199 % 5)
        assert found.version == 1 + applied


async def test_saves_of_different_fields_by_many_tabs_all_survive(
    kits: list[StateKit], me: Principal
) -> None:
    draft = await drafts.create(kits[0], me, Save({}))
    fields = ("contact_name", "line1", "line2", "city", "region", "postal_code", "phone", "label")
    patches = [{place: {name: f"{place} {name}"}} for place in ("pickup", "delivery") for name in fields]
    answers = await asyncio.gather(
        *(
            drafts.save(kits[n % REPLICAS], me, draft.id, Save(patch, client_id=f"tab-{n}", seq=1), ANY)
            for n, patch in enumerate(patches)
        )
    )
    assert all(was_applied for _, was_applied in answers)
    found = await drafts.read(kits[1], me, draft.id)
    assert found.form.data == {
        place: {name: f"{place} {name}" for name in fields} for place in ("pickup", "delivery")
    }


async def test_a_hundred_submits_at_once_make_one_booking_and_get_the_same_answer(
    kits: list[StateKit], me: Principal
) -> None:
    draft = await drafts.create(kits[0], me, Save(shipment()))
    made = await asyncio.gather(*(drafts.submit(kits[n % REPLICAS], me, draft.id) for n in range(100)))
    (booking,) = await bookings_of(kits[0], me)
    assert {document["_id"] for document in made} == {booking["_id"]}
    assert booking["draft_id"] == draft.id
    with pytest.raises(NotFoundError):
        await drafts.read(kits[1], me, draft.id)


async def test_a_save_that_races_with_the_submit_is_booked_or_refused(
    kits: list[StateKit], me: Principal
) -> None:
    """Never acknowledged and lost, and the draft never comes back."""

    async def save(kit: StateKit, draft: Session, n: int) -> str | None:
        await asyncio.sleep(random.uniform(0, 0.01))  # noqa: S311  # spreads the races
        try:
            typed = Save({"reference": str(n)}, client_id="tab", seq=n)
            _, applied = await drafts.save(kit, me, draft.id, typed, ANY)
        except DraftSubmittedError:
            return None
        assert applied
        return str(n)

    outcomes = set()
    for n in range(1, ROUNDS + 1):
        draft = await drafts.create(kits[0], me, Save(shipment(reference="0")))
        kit, other, third = random.sample(kits, 3)
        saved, booking, _ = await asyncio.gather(
            save(kit, draft, n), drafts.submit(other, me, draft.id), drafts.submit(third, me, draft.id)
        )
        assert booking["reference"] == (saved or "0")
        outcomes.add(saved is None)
        for each in kits:
            with pytest.raises(NotFoundError):
                await drafts.read(each, me, draft.id)
    assert len(await bookings_of(kits[0], me)) == ROUNDS
    assert outcomes == {True, False}, "the race was always won by the same side"


async def died_after_closing(kit: StateKit, me: Principal) -> Draft:
    """A draft whose submit went no further than its first step."""
    draft = await drafts.create(kit, me, Save(shipment()))
    closed = await drafts._close(kit, me, await drafts.read(kit, me, draft.id), None)
    assert closed is not None
    return closed


async def test_a_submit_that_died_after_closing_the_draft_is_finished_by_the_next_one(
    kits: list[StateKit], me: Principal
) -> None:
    closed = await died_after_closing(kits[0], me)
    made = await asyncio.gather(*(drafts.submit(kit, me, closed.id) for kit in kits))
    (booking,) = await bookings_of(kits[0], me)
    assert {document["_id"] for document in made} == {booking["_id"]}


@pytest.mark.parametrize("meets", ["save", "delete"])
async def test_whoever_meets_a_closed_draft_finishes_what_was_begun_and_is_told(
    kits: list[StateKit], me: Principal, meets: str
) -> None:
    closed = await died_after_closing(kits[0], me)
    assert (await drafts.read(kits[1], me, closed.id)).shown()["submitted"] is True
    saving = drafts.save(kits[1], me, closed.id, Save({"notes": "late"}), ANY)
    deleting = drafts.delete(kits[1], me, closed.id)
    meeting, other = (saving, deleting) if meets == "save" else (deleting, saving)
    other.close()
    with pytest.raises(DraftSubmittedError) as told:
        await meeting
    (booking,) = await bookings_of(kits[0], me)
    assert told.value.extra["booking_id"] == booking["_id"]
    assert booking["notes"] is None
    with pytest.raises(NotFoundError):
        await drafts.read(kits[2], me, closed.id)


async def test_a_submit_that_died_before_removing_the_draft_leaves_it_closed_to_saves(
    kits: list[StateKit], me: Principal
) -> None:
    closed = await died_after_closing(kits[0], me)
    made = await drafts._insert(kits[0], me, closed, None)
    with pytest.raises(DraftSubmittedError):
        await drafts.save(kits[1], me, closed.id, Save({"notes": "late"}), ANY)
    assert [row["_id"] for row in await bookings_of(kits[0], me)] == [made["_id"]]
    with pytest.raises(NotFoundError):
        await drafts.read(kits[2], me, closed.id)


async def test_what_was_closed_is_booked_though_its_address_and_its_time_are_gone_meanwhile(
    kits: list[StateKit], me: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing speaks against a closed draft any more: else it could neither be booked nor be changed."""
    closed = await died_after_closing(kits[0], me)

    async def refuse(*_: Any) -> Any:
        raise AssertionError("it is checked once only")

    monkeypatch.setattr(service, "resolve", refuse)
    booking = await drafts.submit(kits[1], me, closed.id)
    assert booking["pickup"]["city"] == "Hamburg"


async def test_of_many_who_move_a_booking_on_at_once_one_does(kits: list[StateKit], me: Principal) -> None:
    staff = Principal(**{**{name: getattr(me, name) for name in me.__slots__}, "role": "dispatcher"})
    draft = await drafts.create(kits[0], me, Save(shipment()))
    made = await drafts.submit(kits[0], me, draft.id)
    answers = await asyncio.gather(
        *(
            service.move(kits[n % 3], staff, made["_id"], "assigned", note=None, check_version=ANY.check)
            for n in range(30)
        ),
        return_exceptions=True,
    )
    assert sum(not isinstance(answer, BaseException) for answer in answers) == 1
    booking = await BookingStore(kits[1]).get(staff, made["_id"])
    assert [event["status"] for event in booking["events"]] == ["booked", "assigned"]
    assert booking["version"] == 2
