"""A disbursement as it is stored and as it is shown.

Document in `disbursements`: {_id the application's, tenant_id, user_id (who applied), state, attempt, amount
{amount_minor, currency}, payee, actor {user_id, name, role} (who asked for it), claim (the scoped
Idempotency-Key it was asked for with, or null), requested_at, settled_at, payment_id, transfer_id, refusal}.

    pending ──► paid
       │ ▲
       ▼ │ asked for anew: attempt + 1
     refused

`pending`: the intent is committed and the gateway's answer is not; a job asks until it is.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from app.core.moments import timestamp
from app.features.disbursements.gateway import Order
from app.features.ledger.service import Claim
from app.state.mongo import Document

State = Literal["pending", "paid", "refused"]


def new_disbursement(
    application: Mapping[str, Any], *, actor: Document, claim: str | None, attempt: int, now: datetime
) -> Document:
    """Return the document of a payment that is about to be asked for."""
    return {
        "_id": application["_id"],
        "tenant_id": application["tenant_id"],
        "user_id": application["user_id"],
        "state": "pending",
        "attempt": attempt,
        "amount": application["requested_amount"],
        "payee": application["company_name"],
        "actor": actor,
        "claim": claim,
        "requested_at": now,
        "settled_at": None,
        "payment_id": None,
        "transfer_id": None,
        "refusal": None,
    }


def order_of(disbursement: Mapping[str, Any]) -> Order:
    """Return what the gateway is asked for. The key is the loan's id, whatever attempt this is."""
    amount = disbursement["amount"]
    return Order(disbursement["_id"], amount["amount_minor"], amount["currency"], disbursement["payee"])


def claim_of(application: Mapping[str, Any]) -> Claim:
    """Return what the ledger is told of an application that was approved."""
    amount = application["requested_amount"]
    return Claim(
        tenant_id=application["tenant_id"],
        user_id=application["user_id"],
        subject_id=application["_id"],
        amount_minor=amount["amount_minor"],
        currency=amount["currency"],
    )


def shown(disbursement: Mapping[str, Any]) -> dict[str, Any]:
    """Return a disbursement as it is answered."""
    settled_at = disbursement["settled_at"]
    pending = "the payment gateway's answer; it is being asked until it says"
    return {
        "application_id": disbursement["_id"],
        "state": disbursement["state"],
        "amount": disbursement["amount"],
        "payee": disbursement["payee"],
        "attempt": disbursement["attempt"],
        "requested_by": disbursement["actor"],
        "requested_at": timestamp(disbursement["requested_at"]),
        "settled_at": None if settled_at is None else timestamp(settled_at),
        "payment_id": disbursement["payment_id"],
        "transfer_id": disbursement["transfer_id"],
        "refusal": disbursement["refusal"],
        "pending": pending if disbursement["state"] == "pending" else None,
    }
