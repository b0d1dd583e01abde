"""Bookings on credit: the price is held, posted or let go together with what causes it, within the limit."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from app.core.errors import CargoFlowError
from app.core.settings import Settings
from app.features.bookings import drafts, service
from app.features.bookings.errors import CreditRefusedError
from app.features.bookings.forms import Save
from app.features.bookings.schemas import NewBooking
from app.features.ledger import service as ledger
from app.features.ledger.service import Claim
from app.features.ledger.verification import verify
from app.http.etags import WriteCondition
from app.state.keyed import Answer, Keyed
from app.state.kit import StateKit, open_kit
from app.state.mongo import ClientSession
from app.state.principals import Principal
from tests.features.answers import problem, wrong_fields
from tests.features.bookings.callers import new_caller
from tests.features.bookings.shipments import book, shipment
from tests.state.people import Person
from tests.waiting import held_by_one_task, until

KEY = {"Idempotency-Key": "k-1"}
Amounts = tuple[int, int, int]
"""Balance, held and what remains of a credit line."""


def claim(tenant_id: str, user_id: str, amount_minor: int, subject_id: str = "app_a") -> Claim:
    return Claim(tenant_id, user_id, subject_id, amount_minor, "EUR")


async def grant(kit: StateKit, person: Person, amount_minor: int) -> None:
    await ledger.grant(kit, claim(person.account.tenant_id, person.account.id, amount_minor))


async def line(kit: StateKit, tenant_id: str, user_id: str) -> Amounts:
    wanted = claim(tenant_id, user_id, 1).credit_line.id
    row = await kit.mongo.collection("ledger_accounts").find_one({"_id": wanted})
    assert row is not None
    return row["balance_minor"], row["held_minor"], row["remaining_minor"]


async def line_of(kit: StateKit, person: Person) -> Amounts:
    return await line(kit, person.account.tenant_id, person.account.id)


async def kinds(kit: StateKit) -> list[str]:
    rows = await kit.mongo.collection("ledger_transfers").find({}).to_list(None)
    return sorted(row["kind"] for row in rows if row["kind"] != "grant")


async def send(api: httpx.AsyncClient, dispatcher: Person, booking_id: str, *statuses: str) -> None:
    for status in statuses:
        answer = await api.post(
            f"/bookings/{booking_id}/status", json={"status": status}, headers=dispatcher.headers
        )
        assert answer.status_code == 200, answer.text


async def test_the_price_is_held_then_posted_when_delivered_or_let_go_when_cancelled(
    api: httpx.AsyncClient, app_kit: StateKit, me: Person, dispatcher: Person
) -> None:
    await grant(app_kit, me, 1_000_000)
    delivered, cancelled = await book(api, payment="credit"), await book(api, payment="credit")
    price = delivered["price"]["amount_minor"]
    assert await line_of(app_kit, me) == (0, 2 * price, 1_000_000 - 2 * price)
    await api.post(f"/bookings/{cancelled['id']}/cancel")
    await send(api, dispatcher, delivered["id"], "assigned", "picked_up", "in_transit")
    assert await line_of(app_kit, me) == (0, price, 1_000_000 - price)
    await send(api, dispatcher, delivered["id"], "delivered", "closed")
    assert await line_of(app_kit, me) == (price, 0, 1_000_000 - price)
    assert await kinds(app_kit) == ["hold", "hold", "post", "void"]
    again = await api.post(f"/bookings/{cancelled['id']}/cancel")
    assert problem(again) == (409, "invalid_transition")
    assert (await verify(app_kit, me.account.tenant_id)).ok


async def test_a_booking_on_credit_that_is_cancelled_twice_with_one_key_lets_its_hold_go_once(
    api: httpx.AsyncClient, app_kit: StateKit, me: Person
) -> None:
    await grant(app_kit, me, 1_000_000)
    booking = await book(api, payment="credit")
    path, key = f"/bookings/{booking['id']}/cancel", {"Idempotency-Key": "c-1"}
    answers = await asyncio.gather(*(api.post(path, headers=key) for _ in range(5)))
    assert {(answer.status_code, answer.content) for answer in answers} == {(200, answers[0].content)}
    assert await kinds(app_kit) == ["hold", "void"]
    assert await line_of(app_kit, me) == (0, 0, 1_000_000)


async def test_a_prepaid_booking_has_nothing_to_do_with_the_ledger(
    api: httpx.AsyncClient, app_kit: StateKit, dispatcher: Person
) -> None:
    first, second = await book(api), await book(api)
    await api.post(f"/bookings/{first['id']}/cancel")
    await send(api, dispatcher, second["id"], "assigned", "picked_up", "in_transit", "delivered")
    assert await kinds(app_kit) == []


async def test_what_the_credit_line_does_not_leave_is_not_booked_and_the_refusal_says_what_is_left(
    api: httpx.AsyncClient, app_kit: StateKit, me: Person
) -> None:
    price = (await book(api))["price"]["amount_minor"]
    none = await api.post("/bookings", json=shipment(payment="credit"))
    assert wrong_fields(none) == {"payment"}
    assert "there is none; choose prepaid" in none.json()["errors"][0]["message"]
    await grant(app_kit, me, price + 1_50)
    await book(api, payment="credit")
    short = await api.post("/bookings", json=shipment(payment="credit"), headers=KEY)
    assert wrong_fields(short) == {"payment"}
    assert "of the credit line 1.50 EUR is left" in short.json()["errors"][0]["message"]
    assert await line_of(app_kit, me) == (0, price, 1_50)
    assert len((await api.get("/bookings")).json()["items"]) == 2
    await ledger.grant(app_kit, claim(me.account.tenant_id, me.account.id, price, "app_b"))
    made = await api.post("/bookings", json=shipment(payment="credit"), headers=KEY)
    assert made.status_code == 201, "what was refused is not remembered"


async def test_a_booking_on_credit_that_is_sent_twice_is_held_once(
    api: httpx.AsyncClient, app_kit: StateKit, me: Person
) -> None:
    await grant(app_kit, me, 1_000_000)
    body = shipment(payment="credit")
    answers = await asyncio.gather(*(api.post("/bookings", json=body, headers=KEY) for _ in range(12)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert await kinds(app_kit) == ["hold"]
    assert problem(await api.post("/bookings", json=shipment(), headers=KEY)) == (
        422,
        "idempotency_key_reused",
    )


async def test_a_draft_on_credit_that_is_refused_stays_open_and_can_be_booked_prepaid(
    api: httpx.AsyncClient, app_kit: StateKit, me: Person
) -> None:
    draft = (await api.post("/bookings/drafts", json={"data": shipment(payment="credit")})).json()
    path = f"/bookings/drafts/{draft['id']}"
    assert wrong_fields(await api.post(f"{path}/submit")) == {"payment"}
    kept = (await api.get(path)).json()
    assert (kept["submitted"], kept["version"]) == (False, draft["version"])
    await grant(app_kit, me, 1_000_000)
    made = await api.post(f"{path}/submit")
    assert (made.status_code, made.json()["payment"]) == (201, "credit")
    assert (await api.post(f"{path}/submit")).content == made.content
    assert await kinds(app_kit) == ["hold"]


# -- below HTTP, through several replicas -------------------------------------------------------------------


@pytest.fixture
async def kits(settings: Settings) -> AsyncIterator[list[StateKit]]:
    """Three replicas on the same stores."""
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(held_by_one_task(open_kit(settings))) for _ in range(3)]
        for kit in opened:
            await until(lambda kit=kit: kit.mongo.health.status == "pass" == kit.redis.health.status)
        yield opened


@pytest.fixture
async def caller(kits: list[StateKit]) -> Principal:
    return await new_caller(kits[0])


def on_credit() -> NewBooking:
    return NewBooking.model_validate(shipment(payment="credit"))


def no_answer(_: Any) -> Answer:
    return Answer(201, b"{}")


async def test_bookings_that_race_through_three_replicas_never_pass_the_limit(
    kits: list[StateKit], caller: Principal
) -> None:
    places = await service.resolve(kits[0], caller, on_credit())
    price = (await service.prepare(kits[0], caller, on_credit(), places))["price"]["amount_minor"]
    await ledger.grant(kits[0], claim(caller.tenant_id, caller.user_id, 4 * price + 1))

    async def outcome(kit: StateKit) -> str:
        try:
            return str((await service.book(kit, caller, on_credit()))["_id"])
        except CreditRefusedError:
            return "refused"
        except CargoFlowError as error:
            assert error.code == "conflict"  # noqa: PT017  # others were quicker, again and again
            return "conflict"

    outcomes = await asyncio.gather(*(outcome(kits[n % 3]) for n in range(24)))
    made = [found for found in outcomes if found.startswith("bkg_")]
    assert 0 < len(made) <= 4
    assert len(made) == 4 or "conflict" in outcomes
    held, left = len(made) * price, (4 - len(made)) * price + 1
    assert await line(kits[1], caller.tenant_id, caller.user_id) == (0, held, left)
    assert await kits[2].mongo.collection("bookings").count_documents({}) == len(made)
    cancels = await asyncio.gather(
        *(cancel(kits[n % 3], caller, booking_id) for n, booking_id in enumerate(made * 3))
    )
    assert cancels.count("cancelled") == len(made)
    assert await line(kits[0], caller.tenant_id, caller.user_id) == (0, 0, 4 * price + 1)
    report = await verify(kits[0], caller.tenant_id)
    assert (report.ok, report.unsealed) == (True, 1 + 2 * len(made))


async def cancel(kit: StateKit, caller: Principal, booking_id: str) -> str:
    try:
        moved = await service.move(
            kit, caller, booking_id, "cancelled", note=None, check_version=WriteCondition().check
        )
    except CargoFlowError as error:
        return error.code
    return str(moved["status"])


async def test_credit_that_goes_while_a_draft_is_submitted_leaves_the_draft_open_and_loses_no_save(
    kits: list[StateKit], caller: Principal
) -> None:
    kit, other = kits[:2]
    await ledger.grant(kit, claim(caller.tenant_id, caller.user_id, 1_000_000))
    draft = await drafts.create(kit, caller, Save(shipment(payment="credit")))
    closed = await drafts._close(kit, caller, await drafts.read(kit, caller, draft.id), None)
    assert closed is not None  # and here its process dies

    async def take_it_all(session: ClientSession) -> None:
        await ledger.hold(kit, claim(caller.tenant_id, caller.user_id, 1_000_000, "bkg_other"), session)

    await kit.transactions.run(take_it_all)
    saved, applied = await drafts.save(
        other, caller, draft.id, Save({"notes": "typed meanwhile"}), WriteCondition()
    )
    assert applied
    assert saved.form.places is None
    with pytest.raises(CreditRefusedError):
        await drafts.submit(kit, caller, draft.id)
    assert (await drafts.read(other, caller, draft.id)).form.data["notes"] == "typed meanwhile"
    await drafts.save(kit, caller, draft.id, Save({"payment": "prepaid"}), WriteCondition())
    made = await drafts.submit(other, caller, draft.id)
    assert (made["payment"], made["notes"]) == ("prepaid", "typed meanwhile")


async def test_a_closed_draft_without_credit_can_still_be_deleted(
    kits: list[StateKit], caller: Principal
) -> None:
    kit, other = kits[:2]
    await ledger.grant(kit, claim(caller.tenant_id, caller.user_id, 1_000_000))
    draft = await drafts.create(kit, caller, Save(shipment(payment="credit")))
    assert await drafts._close(kit, caller, await drafts.read(kit, caller, draft.id), None)
    await kit.mongo.collection("ledger_accounts").update_many({}, {"$set": {"remaining_minor": 0}})
    await drafts.delete(other, caller, draft.id)
    assert await kit.mongo.collection("bookings").count_documents({}) == 0
    assert await kit.mongo.collection("sessions").count_documents({"_id": draft.id}) == 0


async def test_two_submits_of_one_draft_on_credit_hold_its_price_once(
    kits: list[StateKit], caller: Principal
) -> None:
    places = await service.resolve(kits[0], caller, on_credit())
    price = (await service.prepare(kits[0], caller, on_credit(), places))["price"]["amount_minor"]
    await ledger.grant(kits[0], claim(caller.tenant_id, caller.user_id, price))
    draft = await drafts.create(kits[0], caller, Save(shipment(payment="credit")))
    keys = [Keyed(kits[0].idempotency.claim(f"k{n}", b"x"), no_answer) if n % 3 else None for n in range(9)]
    made = await asyncio.gather(
        *(drafts.submit(kits[n % 3], caller, draft.id, None, keys[n]) for n in range(9))
    )
    assert len({booking["_id"] for booking in made}) == 1
    assert await kinds(kits[0]) == ["hold"]
    assert await line(kits[0], caller.tenant_id, caller.user_id) == (0, price, 0)
