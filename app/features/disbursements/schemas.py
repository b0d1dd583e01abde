"""Body and answer of paying out."""

from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field

from app.core.moments import Timestamp
from app.core.money import Currency
from app.features.disbursements.documents import State
from app.http.schemas import MONEY_MAX_MINOR, Money, ResponseModel, StrictModel

_EXAMPLE: Final[dict[str, Any]] = {"amount": {"amount_minor": 5000000, "currency": "EUR"}}


class ApprovedAmount(Money):
    """The approved amount, said again."""

    amount_minor: Annotated[int, Field(strict=True, gt=0, le=MONEY_MAX_MINOR)]
    currency: Currency


class NewDisbursement(StrictModel):
    """A loan to be paid out."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    amount: ApprovedAmount
    """What was approved, and nothing else: `422` otherwise."""


class ActorOut(ResponseModel):
    """Who asked for it."""

    user_id: str
    name: str
    role: str


class DisbursementOut(ResponseModel):
    """How a payment stands."""

    application_id: str
    state: State
    """`pending` while the gateway's answer is open, then `paid` or `refused`."""
    amount: Money
    payee: str
    attempt: int
    """How often it was asked for: a payment that was refused may be asked for anew."""
    requested_by: ActorOut
    requested_at: Timestamp
    settled_at: Timestamp | None
    payment_id: str | None
    """The gateway's; `sim_…` is a simulated one, which moved nothing."""
    transfer_id: str | None
    """The entry of the ledger."""
    refusal: str | None
    """Why the gateway refused."""
    pending: str | None
    """What is being waited for."""
    see: str
    """Where it is shown as it stands."""
