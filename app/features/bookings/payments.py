"""What a booking on credit does to the customer's credit line; a prepaid one does nothing to it.

Its price is held when it is made, posted when it is delivered and let go when it is cancelled, each in the
transaction of what causes it: there is no booking on credit without its hold and no hold without its booking,
and whoever dies in between leaves neither. Whether the credit suffices is decided by the hold alone.
"""

from typing import Final, Literal

from app.features.bookings.errors import CreditRefusedError
from app.features.bookings.transitions import Status
from app.features.ledger import service as ledger
from app.features.ledger.errors import InsufficientCreditError
from app.state.kit import StateKit
from app.state.mongo import ClientSession, Document

_ENDS: Final[dict[Status, Literal["post", "void"]]] = {"delivered": "post", "cancelled": "void"}


def is_on_credit(booking: Document) -> bool:
    """Say whether it is paid for by credit."""
    return bool(booking["payment"] == "credit")


def ends_hold(before: Document, after: Document) -> bool:
    """Say whether a change of a booking ends the hold of its price."""
    return is_on_credit(after) and before["status"] != after["status"] and after["status"] in _ENDS


async def check(kit: StateKit, booking: Document) -> None:
    """Raise CreditRefusedError if a booking's price is not left of the credit line as of now.

    So that one who has no chance need not try: `hold` decides.
    """
    if not is_on_credit(booking):
        return
    price = _claim(booking)
    remaining_minor = await ledger.remaining_minor(kit, price)
    if remaining_minor is None or remaining_minor < price.amount_minor:
        raise CreditRefusedError(
            price_minor=price.amount_minor, remaining_minor=remaining_minor, currency=price.currency
        )


async def hold(kit: StateKit, booking: Document, session: ClientSession) -> None:
    """Hold the price of a booking that is made in this transaction. Raises CreditRefusedError."""
    price = _claim(booking)
    try:
        await ledger.hold(kit, price, session)
    except InsufficientCreditError as error:
        raise CreditRefusedError(
            price_minor=price.amount_minor, remaining_minor=error.remaining_minor, currency=price.currency
        ) from error


async def end_hold(kit: StateKit, booking: Document, session: ClientSession) -> None:
    """Post or let go the price of a booking, which gets the status that it has here in this transaction."""
    await ledger.end_hold(
        kit,
        _ENDS[booking["status"]],
        tenant_id=booking["tenant_id"],
        booking_id=booking["_id"],
        session=session,
    )


def _claim(booking: Document) -> ledger.Claim:
    return ledger.Claim(
        tenant_id=booking["tenant_id"],
        user_id=booking["user_id"],
        subject_id=booking["_id"],
        amount_minor=booking["price"]["amount_minor"],
        currency=booking["price"]["currency"],
    )
