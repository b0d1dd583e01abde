"""What tests grant, hold and move."""

from typing import Any

from app.core.ids import new_id
from app.features.ledger import service
from app.features.ledger.accounts import Account
from app.features.ledger.service import Claim
from app.features.ledger.transfers import Transfer, both_sides
from app.state.kit import StateKit
from app.state.mongo import ClientSession, Document

TENANT = "ten_a"


def claim(amount_minor: int = 1_000, *, user_id: str = "usr_a", **changes: Any) -> Claim:
    return Claim(
        **{
            "tenant_id": TENANT,
            "user_id": user_id,
            "subject_id": new_id("bkg"),
            "amount_minor": amount_minor,
            "currency": "EUR",
            **changes,
        }
    )


async def hold(kit: StateKit, price: Claim) -> None:
    """Hold a price in a transaction of its own."""

    async def work(session: ClientSession) -> None:
        await service.hold(kit, price, session)

    await kit.transactions.run(work)


async def end_hold(kit: StateKit, how: Any, price: Claim) -> None:
    async def work(session: ClientSession) -> None:
        await service.end_hold(
            kit, how, tenant_id=price.tenant_id, booking_id=price.subject_id, session=session
        )

    await kit.transactions.run(work)


def moved(debit: Account, credit: Account, amount_minor: int, cause: str) -> Transfer:
    """A transfer between any two accounts."""
    return Transfer(
        id=cause,
        tenant_id=debit.tenant_id,
        kind="payout",
        currency=debit.currency,
        user_id=debit.user_id or "",
        subject_id=cause,
        postings=both_sides(debit, credit, amount_minor),
    )


async def account(kit: StateKit, wanted: Account) -> Document:
    row = await kit.mongo.collection("ledger_accounts").find_one({"_id": wanted.id})
    assert row is not None
    return dict(row)


async def amounts(kit: StateKit, wanted: Account) -> tuple[int, int, int | None, int | None]:
    """Balance, held, limit, remaining."""
    row = await account(kit, wanted)
    return row["balance_minor"], row["held_minor"], row["limit_minor"], row["remaining_minor"]
