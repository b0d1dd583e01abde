"""Transfers: balanced, once, within limits, whoever races."""

import asyncio
from collections.abc import Awaitable

import pytest

from app.core.errors import CargoFlowError
from app.features.ledger import service
from app.features.ledger.accounts import Account
from app.features.ledger.errors import InsufficientCreditError, TransferRepeatedError
from app.features.ledger.ledger import BrokenLedgerError, Ledger
from app.features.ledger.transfers import Posting, Transfer
from app.features.ledger.verification import verify
from app.state.kit import StateKit
from tests.features.ledger.money import TENANT, amounts, claim, end_hold, hold, moved


async def transfers(kit: StateKit) -> list[str]:
    return sorted([row["_id"] async for row in kit.mongo.collection("ledger_transfers").find({})])


async def outcome(work: Awaitable[object]) -> str:
    try:
        await work
    except CargoFlowError as error:
        return error.code
    return "ok"


async def test_a_grant_raises_both_limits_once_however_often_it_is_made(kit: StateKit) -> None:
    approved = claim(50_000, subject_id="app_a")
    made = await asyncio.gather(*(service.grant(kit, approved) for _ in range(8)))
    assert sorted(made) == [False] * 7 + [True]
    assert await amounts(kit, approved.credit_line) == (0, 0, 50_000, 50_000)
    assert await amounts(kit, approved.loan) == (0, 0, 50_000, 50_000)
    assert await transfers(kit) == ["grant:app_a"]


async def test_grants_of_several_applications_add_up(kit: StateKit) -> None:
    for number in range(3):
        await service.grant(kit, claim(2_000_000_000, subject_id=f"app_{number}"))
    assert await amounts(kit, claim().credit_line) == (0, 0, 6_000_000_000, 6_000_000_000)
    await hold(kit, claim(5_000_000_000))
    assert await amounts(kit, claim().credit_line) == (0, 5_000_000_000, 6_000_000_000, 1_000_000_000)
    assert (await verify(kit, TENANT)).ok


async def test_another_transfer_under_the_same_cause_is_refused(kit: StateKit) -> None:
    await service.grant(kit, claim(5, subject_id="app_a"))
    with pytest.raises(TransferRepeatedError):
        await service.grant(kit, claim(6, subject_id="app_a"))
    assert await amounts(kit, claim().credit_line) == (0, 0, 5, 5)


async def test_a_hold_is_posted_or_let_go_and_the_limit_counts_both(kit: StateKit) -> None:
    await service.grant(kit, claim(1_000, subject_id="app_a"))
    delivered, cancelled = claim(600), claim(400)
    await hold(kit, delivered)
    await hold(kit, cancelled)
    assert await amounts(kit, delivered.credit_line) == (0, 1_000, 1_000, 0)
    assert await amounts(kit, delivered.freight_revenue) == (0, 0, None, None)
    await end_hold(kit, "post", delivered)
    await end_hold(kit, "void", cancelled)
    assert await amounts(kit, delivered.credit_line) == (600, 0, 1_000, 400)
    assert await amounts(kit, delivered.freight_revenue) == (-600, 0, None, None)


async def test_a_hold_ends_once(kit: StateKit) -> None:
    await service.grant(kit, claim(1_000, subject_id="app_a"))
    price = claim(600)
    await hold(kit, price)
    ends = await asyncio.gather(*(outcome(end_hold(kit, how, price)) for how in ("post", "void") * 4))
    assert sorted(ends) == ["conflict"] * 7 + ["ok"]
    balance, held, _, remaining = await amounts(kit, price.credit_line)
    assert (held, balance + (remaining or 0)) == (0, 1_000)


async def test_what_the_limit_does_not_leave_is_refused_and_leaves_nothing(kit: StateKit) -> None:
    await service.grant(kit, claim(1_000, subject_id="app_a"))
    with pytest.raises(InsufficientCreditError, match="1000 are left"):
        await hold(kit, claim(1_001))
    with pytest.raises(InsufficientCreditError, match="no credit line in USD"):
        await hold(kit, claim(1, currency="USD"))
    with pytest.raises(InsufficientCreditError, match="no credit line"):
        await hold(kit, claim(1, user_id="usr_b"))
    with pytest.raises(InsufficientCreditError, match="no credit line"):
        await hold(kit, claim(1, tenant_id="ten_b"))
    assert await transfers(kit) == ["grant:app_a"]
    assert await amounts(kit, claim().credit_line) == (0, 0, 1_000, 1_000)


async def test_holds_that_race_through_two_replicas_never_pass_the_limit(
    kit: StateKit, other_kit: StateKit
) -> None:
    await service.grant(kit, claim(1_000, subject_id="app_a"))
    prices = [claim(90) for _ in range(30)]
    outcomes = await asyncio.gather(
        *(outcome(hold((kit, other_kit)[n % 2], price)) for n, price in enumerate(prices))
    )
    _, held, _, remaining = await amounts(kit, claim().credit_line)
    assert held == 90 * outcomes.count("ok") <= 1_000
    assert remaining == 1_000 - held
    assert set(outcomes) <= {"ok", "insufficient_credit", "conflict"}
    assert "insufficient_credit" in outcomes or held <= 990
    assert (await verify(kit, TENANT)).ok


async def test_a_loan_is_paid_out_no_more_than_once_and_within_what_was_approved(kit: StateKit) -> None:
    approved = claim(1_000, subject_id="app_a")
    await service.grant(kit, approved)

    async def pay(amount_minor: int) -> str:
        async def work(session: object) -> None:
            await service.payout(kit, claim(amount_minor, subject_id="app_a"), session)

        return await outcome(kit.transactions.run(work))

    assert [await pay(1_001), await pay(1_000), await pay(1_000)] == [
        "insufficient_credit",
        "ok",
        "conflict",
    ]
    assert await amounts(kit, approved.loan) == (1_000, 0, 1_000, 0)
    assert await amounts(kit, approved.payout_clearing) == (-1_000, 0, None, None)
    assert await amounts(kit, approved.credit_line) == (0, 0, 1_000, 1_000)


def test_what_does_not_balance_is_no_transfer() -> None:
    owner = Account.credit_line(tenant_id=TENANT, user_id="usr_a", currency="EUR")
    side = Posting(owner.id, owner.kind, "debit", 5)
    with pytest.raises(ValueError, match="does not balance"):
        Transfer("t", TENANT, "payout", "EUR", "usr_a", "s", postings=(side,))
    with pytest.raises(ValueError, match="posting of 0"):
        Posting(owner.id, owner.kind, "debit", 0)


async def test_a_hold_that_was_never_made_and_an_account_never_opened_are_mistakes(kit: StateKit) -> None:
    with pytest.raises(BrokenLedgerError):
        await end_hold(kit, "post", claim())
    never_opened = claim()
    revenue, clearing = never_opened.freight_revenue, never_opened.payout_clearing
    with pytest.raises(BrokenLedgerError):
        await Ledger(kit).make(moved(revenue, clearing, 1, "t"))
    assert await transfers(kit) == []
