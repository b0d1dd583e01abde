"""Paying out: once, what was approved, by who reviews, and honest about what is open."""

from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.features.disbursements import service
from app.features.ledger.verification import verify
from app.state.kit import StateKit
from tests.features.answers import problem, wrong_fields
from tests.features.credit.applications import EUROS, apply_until, history
from tests.features.disbursements.loans import disburse, look, status, transfers
from tests.gateway_server import GatewayServer
from tests.state.people import Person, colleague, new_person

REPLAYED = "idempotent-replayed"


async def resolve(app: FastAPI, me: Person, application_id: str) -> str:
    """Do what the job does."""
    return await service.resolve(app.state.kit, app.state.gateway, me.account.tenant_id, application_id)


async def test_an_approved_loan_is_paid_out_and_everything_says_so(
    *, api: httpx.AsyncClient, app_kit: StateKit, me: Person, underwriter: Person, admin: Person
) -> None:
    """Through the simulator, which is what development pays through."""
    made = await apply_until(api, underwriter, "approved")
    answer = await disburse(api, admin, made["id"])
    assert answer.status_code == 201, answer.text
    paid = answer.json()
    assert (paid["state"], paid["amount"], paid["payee"], paid["attempt"]) == ("paid", EUROS, "Marek GmbH", 1)
    assert paid["payment_id"].startswith("sim_")
    assert (paid["requested_by"]["user_id"], paid["pending"]) == (admin.account.id, None)
    assert answer.headers["location"] == paid["see"] == f"/api/v1/applications/{made['id']}/disbursement"
    for person in (me, underwriter):
        assert await look(api, made["id"], headers=person.headers) == paid
    assert await status(api, made["id"]) == "disbursed"
    events = await history(api, made["id"])
    assert [event["status"] for event in events[-2:]] == ["disbursing", "disbursed"]
    (transfer,) = await transfers(app_kit, made["id"])
    assert transfer["_id"] == paid["transfer_id"]
    assert (await verify(app_kit, me.account.tenant_id)).ok
    again = await disburse(api, underwriter, made["id"])
    assert problem(again) == (409, "invalid_transition")
    assert again.json()["current_status"] == "disbursed"


async def test_who_may_not_pay_and_what_may_not_be_paid_is_refused_and_nothing_happens(
    *,
    api: httpx.AsyncClient,
    app_kit: StateKit,
    me: Person,
    underwriter: Person,
    admin: Person,
    paying: None,
    server: GatewayServer,
) -> None:
    made = await apply_until(api, underwriter, "approved")
    assert problem(await disburse(api, me, made["id"])) == (403, "forbidden")
    dispatcher = await colleague(app_kit, me, "dispatcher")
    assert problem(await disburse(api, dispatcher, made["id"])) == (403, "forbidden")
    stranger = await new_person(app_kit, role="admin")
    for person, application_id in ((stranger, made["id"]), (admin, "app_nothing")):
        assert problem(await disburse(api, person, application_id)) == (404, "not_found")
        path = f"/applications/{application_id}/disbursement"
        assert problem(await api.get(path, headers=person.headers)) == (404, "not_found")
    for amount in (
        {**EUROS, "amount_minor": EUROS["amount_minor"] - 1},
        {**EUROS, "amount_minor": EUROS["amount_minor"] + 1},
        {**EUROS, "currency": "USD"},
    ):
        assert wrong_fields(await disburse(api, admin, made["id"], amount=amount)) == {"amount"}
    bad: list[tuple[dict[str, Any], str]] = [
        ({"amount": None}, "amount"),
        ({"amount": {**EUROS, "amount_minor": 0}}, "amount.amount_minor"),
        ({"amount": {**EUROS, "amount_minor": 5_000_000.0}}, "amount.amount_minor"),
        ({"amount": {**EUROS, "amount_minor": "5000000"}}, "amount.amount_minor"),
        ({"amount": {**EUROS, "currency": "XYZ"}}, "amount.currency"),
        ({"to": "somebody else"}, "to"),
    ]
    for changes, field in bad:
        assert wrong_fields(await disburse(api, admin, made["id"], **changes)) == {field}
    for wanted, allowed in (
        ("pending", ["in_review"]),
        ("in_review", ["approved", "rejected"]),
        ("rejected", []),
    ):
        other = await apply_until(api, underwriter, wanted)
        refused = await disburse(api, admin, other["id"])
        assert problem(refused) == (409, "invalid_transition")
        assert (refused.json()["current_status"], refused.json()["allowed"]) == (wanted, allowed)
    path = f"/applications/{made['id']}/disbursement"
    assert problem(await api.get(path)) == (404, "not_found")
    assert (server.asked, await status(api, made["id"])) == (0, "approved")


async def test_a_repeated_request_with_its_key_gets_the_first_answer_and_pays_nothing(
    *, api: httpx.AsyncClient, underwriter: Person, paying: None, server: GatewayServer
) -> None:
    made = await apply_until(api, underwriter, "approved")
    first = await disburse(api, underwriter, made["id"], "k-1")
    assert (first.status_code, REPLAYED in first.headers) == (201, False)
    again = await disburse(api, underwriter, made["id"], "k-1")
    assert (again.status_code, again.content, again.headers[REPLAYED]) == (201, first.content, "true")
    assert again.headers["location"] == first.headers["location"]
    other = await disburse(api, underwriter, made["id"], "k-1", amount={**EUROS, "amount_minor": 1})
    assert problem(other) == (422, "idempotency_key_reused")
    assert problem(await disburse(api, underwriter, made["id"], "k-2")) == (409, "invalid_transition")
    assert (server.asked, len(server.paid)) == (1, 1)
    assert server.authorizations == {"Bearer gk-1"}


async def test_an_answer_that_was_lost_is_open_until_the_gateway_is_asked_again(
    *,
    api: httpx.AsyncClient,
    app: FastAPI,
    app_kit: StateKit,
    me: Person,
    underwriter: Person,
    paying: None,
    server: GatewayServer,
) -> None:
    server.behaviour = lambda _: "lose"
    made = await apply_until(api, underwriter, "approved")
    first = await disburse(api, underwriter, made["id"], "k-1")
    assert first.status_code == 202, first.text
    assert first.json()["state"] == "pending"
    assert first.json()["pending"]
    assert first.headers["location"] == first.json()["see"]
    assert (await look(api, made["id"]))["state"] == "pending"
    assert await status(api, made["id"]) == "disbursing"
    again = await disburse(api, underwriter, made["id"], "k-1")
    assert (again.status_code, again.content) == (202, first.content)
    assert problem(await disburse(api, underwriter, made["id"])) == (409, "invalid_transition")
    assert await transfers(app_kit, made["id"]) == []
    server.behaviour = lambda _: "fail"
    assert await resolve(app, me, made["id"]) == "paid"  # it is found, and not asked for again
    assert (server.asked, len(server.payments_to("Marek GmbH"))) == (1, 1)
    assert await status(api, made["id"]) == "disbursed"
    last = await disburse(api, underwriter, made["id"], "k-1")
    assert (last.status_code, last.json()["state"]) == (201, "paid")
    assert last.json() == await look(api, made["id"])
    assert len(await transfers(app_kit, made["id"])) == 1
    assert await resolve(app, me, made["id"]) == "paid"


async def test_what_the_gateway_refuses_is_approved_again_and_may_be_asked_for_anew(
    *,
    api: httpx.AsyncClient,
    app: FastAPI,
    app_kit: StateKit,
    me: Person,
    underwriter: Person,
    paying: None,
    server: GatewayServer,
) -> None:
    server.behaviour = lambda _: "refuse"
    made = await apply_until(api, underwriter, "approved")
    refused = await disburse(api, underwriter, made["id"], "k-1")
    assert problem(refused) == (409, "payment_refused")
    assert refused.json()["reason"] == "account closed"
    assert await status(api, made["id"]) == "approved"
    shown = await look(api, made["id"])
    assert (shown["state"], shown["refusal"], shown["pending"]) == ("refused", "account closed", None)
    assert (await history(api, made["id"]))[-1]["note"] == "The payment gateway refused: account closed"
    server.behaviour = lambda _: "pay"
    paid = await disburse(api, underwriter, made["id"], "k-1")
    assert (paid.status_code, REPLAYED in paid.headers) == (201, False)
    assert (paid.json()["attempt"], paid.json()["refusal"]) == (2, None)
    assert (len(server.paid), len(await transfers(app_kit, made["id"]))) == (1, 1)
    assert (await verify(app_kit, me.account.tenant_id)).ok


async def test_a_refusal_that_comes_out_later_is_what_the_repeated_request_is_told(
    *,
    api: httpx.AsyncClient,
    app: FastAPI,
    me: Person,
    underwriter: Person,
    paying: None,
    server: GatewayServer,
) -> None:
    server.behaviour = lambda _: "fail"
    made = await apply_until(api, underwriter, "approved")
    assert (await disburse(api, underwriter, made["id"], "k-1")).status_code == 202
    server.behaviour = lambda _: "refuse"
    assert await resolve(app, me, made["id"]) == "refused"
    again = await disburse(api, underwriter, made["id"], "k-1")
    assert (again.status_code, again.json()["state"]) == (202, "refused")
    assert await status(api, made["id"]) == "approved"
    assert server.paid == {}
    server.behaviour = lambda _: "pay"
    assert (await disburse(api, underwriter, made["id"], "k-2")).status_code == 201


async def test_who_comes_while_somebody_is_at_it_is_told_so(
    api: httpx.AsyncClient, app_kit: StateKit, underwriter: Person, paying: None, server: GatewayServer
) -> None:
    made = await apply_until(api, underwriter, "approved")
    async with app_kit.locks.hold(f"loan:{made['id']}"):
        held = await disburse(api, underwriter, made["id"])
        assert problem(held) == (409, "lock_held")
        assert int(held.headers["retry-after"]) >= 1
    assert (server.asked, await status(api, made["id"])) == (0, "approved")


async def test_without_a_gateway_production_says_so_and_changes_nothing(
    api: httpx.AsyncClient, app: FastAPI, underwriter: Person
) -> None:
    made = await apply_until(api, underwriter, "approved")
    app.state.gateway = None
    answer = await disburse(api, underwriter, made["id"], "k-1")
    assert problem(answer) == (503, "gateway_not_configured")
    assert await status(api, made["id"]) == "approved"


@pytest.mark.settings(gateway_simulated_delay_s=9, gateway_timeout_s=0.05)
async def test_a_simulator_slower_than_the_timeout_leaves_the_payment_open(
    api: httpx.AsyncClient, underwriter: Person
) -> None:
    made = await apply_until(api, underwriter, "approved")
    assert (await disburse(api, underwriter, made["id"])).status_code == 202
