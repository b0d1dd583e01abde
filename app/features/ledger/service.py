"""What the ledger records of the business: credit that is granted, freight on credit, loans paid out.

`grant` is a transaction of its own and may be repeated. The others belong into the transaction of what causes
them: a booking that is made, delivered or cancelled; a payout whose outcome is recorded.
"""

from dataclasses import dataclass
from typing import Literal

from app.features.ledger.accounts import Account
from app.features.ledger.ledger import Ledger
from app.features.ledger.store import LedgerStore
from app.features.ledger.transfers import LimitRaise, Transfer, both_sides
from app.state.kit import StateKit
from app.state.mongo import ClientSession


@dataclass(frozen=True, slots=True)
class Claim:
    """An amount that concerns a customer. `subject_id`: the booking or the application it is about."""

    tenant_id: str
    user_id: str
    subject_id: str
    amount_minor: int
    currency: str

    @property
    def credit_line(self) -> Account:
        """The customer's credit line in this currency."""
        return Account.credit_line(tenant_id=self.tenant_id, user_id=self.user_id, currency=self.currency)

    @property
    def loan(self) -> Account:
        """The account of this application's payout."""
        return Account.loan(
            tenant_id=self.tenant_id,
            user_id=self.user_id,
            application_id=self.subject_id,
            currency=self.currency,
        )

    @property
    def freight_revenue(self) -> Account:
        """What the tenant earns by freight."""
        return Account.of_tenant("freight_revenue", tenant_id=self.tenant_id, currency=self.currency)

    @property
    def payout_clearing(self) -> Account:
        """What the tenant has paid out and settles with the gateway."""
        return Account.of_tenant("payout_clearing", tenant_id=self.tenant_id, currency=self.currency)


async def grant(kit: StateKit, approved: Claim) -> bool:
    """Raise the customer's credit line and the application's loan by the approved amount, once.

    Opens every account that a booking on credit or a payout in this currency will touch. Says whether this
    call did it, or one before it. Raises as `Ledger.make` does.
    """
    ledger = Ledger(kit)
    limited = (approved.credit_line, approved.loan)
    transfer = Transfer(
        id=f"grant:{approved.subject_id}",
        tenant_id=approved.tenant_id,
        kind="grant",
        currency=approved.currency,
        user_id=approved.user_id,
        subject_id=approved.subject_id,
        raises=tuple(LimitRaise(account.id, account.kind, approved.amount_minor) for account in limited),
    )
    if await ledger.is_made(transfer):
        return False
    await ledger.open([*limited, approved.freight_revenue, approved.payout_clearing])
    return await ledger.make(transfer)


async def hold(kit: StateKit, price: Claim, session: ClientSession) -> None:
    """Take the price of a booking out of what remains of the customer's credit line.

    Raises InsufficientCreditError, TransferRepeatedError.
    """
    await Ledger(kit).record(
        Transfer(
            id=_hold_id(price.subject_id),
            tenant_id=price.tenant_id,
            kind="hold",
            currency=price.currency,
            user_id=price.user_id,
            subject_id=price.subject_id,
            postings=both_sides(price.credit_line, price.freight_revenue, price.amount_minor),
        ),
        session,
    )


async def end_hold(
    kit: StateKit, how: Literal["post", "void"], *, tenant_id: str, booking_id: str, session: ClientSession
) -> None:
    """Post the hold of a booking that was delivered, or void that of one that was cancelled.

    Raises BrokenLedgerError if there is no such hold, TransferRepeatedError if it has ended.
    """
    ledger = Ledger(kit)
    held = await ledger.get_hold(tenant_id, _hold_id(booking_id), session)
    await ledger.record(
        Transfer(
            id=f"{how}:{booking_id}",
            tenant_id=tenant_id,
            kind=how,
            currency=held.currency,
            user_id=held.user_id,
            subject_id=booking_id,
            postings=held.postings,
            pending_id=held.id,
        ),
        session,
    )


async def payout(kit: StateKit, paid: Claim, session: ClientSession) -> None:
    """Record that a loan was paid out, by the transfer `payout_id`.

    Last in its transaction: all payouts of a tenant meet at its clearing account, for as long as that takes.
    Raises InsufficientCreditError if more is paid than was granted, TransferRepeatedError.
    """
    await Ledger(kit).record(
        Transfer(
            id=payout_id(paid.subject_id),
            tenant_id=paid.tenant_id,
            kind="payout",
            currency=paid.currency,
            user_id=paid.user_id,
            subject_id=paid.subject_id,
            postings=both_sides(paid.loan, paid.payout_clearing, paid.amount_minor),
        ),
        session,
    )


def payout_id(application_id: str) -> str:
    """Return the id of the transfer by which an application is paid out."""
    return f"payout:{application_id}"


async def remaining_minor(kit: StateKit, price: Claim) -> int | None:
    """Return what is left of the customer's credit line as of now; None if there is none in this currency.

    Decides nothing: others may take it in the next moment. `hold` decides.
    """
    row = await LedgerStore(kit).find_account(price.tenant_id, price.credit_line.id)
    return None if row is None else int(row["remaining_minor"])


def _hold_id(booking_id: str) -> str:
    return f"hold:{booking_id}"
