"""Paying out an approved loan: one payment at the gateway, one transfer in the ledger, whoever dies when.

Under the fenced lock `loan:{application}`, in three steps, each of which may be the last that its process
takes:

1. *The intent*, one transaction: application approved → disbursing with its event, the disbursement
   `pending`, the job that resolves it, and the request's key with the answer 202.
2. *The gateway* is asked, with the loan's id as its own idempotency key.
3. *The outcome*, one transaction: application → disbursed, transfer `payout:{application}`, disbursement
   `paid`, and the answer under the key becomes the 201. Or, if the gateway refuses: application → approved,
   disbursement `refused`.

Guarantees
- Paid once. By the state: only an approved application is paid, and the intent ends that. By the lock: one
  process at a time is between 1 and 3, and its writes are fenced. By the gateway: its key is the loan's. By
  the ledger: the transfer's id is the loan's, and the loan's account has a limit of what was approved.
- Nothing stays in doubt: a job asks the gateway (`find`, then `pay` under the same key) until it says paid or
  refused, whether the request's process died, was cut off, or got no answer.
- A request that is repeated with its key gets the answer as it is by then: 202 while open, 201 once paid, and
  202 with the state `refused` if that came out later. One that was told of the refusal itself is a first one
  again. Without a key, or with another one, a loan that was asked for is `409 invalid_transition`, and one
  that somebody is just about to intend `409 lock_held`.

Does not guarantee that a gateway which refuses and pays anyway is caught at once: the next attempt finds it,
under the same key, and the bank statement does.
"""

import logging
from datetime import timedelta
from functools import partial
from typing import Final

from app.core.errors import ConflictError, InvalidTransitionError, StoreUnavailableError
from app.core.moments import to_the_millisecond
from app.core.money import written
from app.features.credit import service as credit
from app.features.credit.documents import actor_of
from app.features.credit.store import ApplicationStore, scope_of
from app.features.credit.transitions import Status, allowed
from app.features.disbursements.documents import claim_of, new_disbursement, order_of, shown
from app.features.disbursements.errors import GatewayNotConfiguredError, PaymentFailedError
from app.features.disbursements.gateway import AnswerOpenError, Gateway, Payment, PaymentRefusedError
from app.features.disbursements.store import DisbursementStore
from app.features.ledger import service as ledger
from app.http.responses import encode
from app.http.schemas import Money
from app.http.validation import refused
from app.state.held_lock import Lock
from app.state.job_documents import NewJob
from app.state.keyed import Answer, Keyed
from app.state.kit import StateKit
from app.state.mongo import ClientSession, Document
from app.state.principals import Principal

_log = logging.getLogger(__name__)

RESOLVE: Final = "disbursements.resolve"
"""Job {application_id}: ask the gateway how a payment ended, and record it."""
LOCK_LEASE_S: Final = 10.0
RESOLVE_AFTER: Final = timedelta(seconds=5)
"""When that job first looks: by then the request is done with it, or dead."""
_TWIN_WAIT_S: Final = 2.5
"""How long a keyed request waits for the lock: it may be its twin who holds it, whose answer it then gets."""
_RESOLVER_WAIT_S: Final = LOCK_LEASE_S + 2.0
_GRANTED: Final = frozenset({"approved", "disbursing", "disbursed"})


async def disburse(
    kit: StateKit,
    gateway: Gateway | None,
    caller: Principal,
    application_id: str,
    *,
    amount: Money,
    keyed: Keyed[Document] | None = None,
) -> Document:
    """Pay out an approved application and return the disbursement: `paid`, or `pending` if that is open.

    Raises GatewayNotConfiguredError, NotFoundError, InvalidTransitionError,
    HistoryFullError, ValidationFailedError for another amount than was approved, in this order;
    LockHeldError; PaymentFailedError; StoreUnavailableError, of which it is not known whether it was
    intended: if it was, the job goes on with it; and with a key what `Idempotency.run` raises.
    """
    if gateway is None:
        raise GatewayNotConfiguredError
    application = await ApplicationStore(kit).get(scope_of(caller), application_id)
    _check(application, amount)
    await ledger.grant(kit, claim_of(application))
    intent: Document | None = None
    try:
        wait_s = 0.0 if keyed is None else _TWIN_WAIT_S
        async with kit.locks.hold(_lock(application_id), lease_s=LOCK_LEASE_S, wait_s=wait_s) as lock:
            intent = await _intend(kit, lock, caller, application, keyed)
            return await _pay(kit, gateway, lock, intent)
    except PaymentFailedError:
        raise
    except (AnswerOpenError, ConflictError, StoreUnavailableError) as error:
        if intent is None:
            raise
        _log.warning("payment_left_open", extra={"application_id": application_id, "reason": str(error)})
        return intent


async def resolve(kit: StateKit, gateway: Gateway | None, tenant_id: str, application_id: str) -> str:
    """Find out how a payment ended, record it, and return the state of the disbursement.

    Raises AnswerOpenError if the gateway still does not say, LockHeldError while a request is at it,
    GatewayNotConfiguredError, StoreUnavailableError: to be tried again.
    """
    if gateway is None:
        raise GatewayNotConfiguredError
    hold = kit.locks.hold(_lock(application_id), lease_s=LOCK_LEASE_S, wait_s=_RESOLVER_WAIT_S)
    async with hold as lock:
        intent = await DisbursementStore(kit).find(tenant_id, application_id)
        if intent is None or intent["state"] != "pending":
            return "none" if intent is None else str(intent["state"])
        try:
            await _pay(kit, gateway, lock, intent, anew=True)
        except PaymentFailedError:
            return "refused"
        return "paid"


async def grant(kit: StateKit, tenant_id: str, application_id: str) -> bool:
    """Raise the applicant's limits by what was approved, once; say whether this call did. For a job."""
    application = await ApplicationStore(kit).get({"tenant_id": tenant_id}, application_id)
    if application["status"] not in _GRANTED:
        return False
    return await ledger.grant(kit, claim_of(application))


def answer(kit: StateKit, disbursement: Document) -> Answer:
    """Return the answer that shows how a payment stands: 201 once it is paid, else 202."""
    see = f"{kit.settings.base_path}/applications/{disbursement['_id']}/disbursement"
    status = 201 if disbursement["state"] == "paid" else 202
    return Answer(status, encode({**shown(disbursement), "see": see}), {"Location": see})


def _check(application: Document, amount: Money) -> None:
    if application["status"] != "approved":
        raise _not_payable(application["status"])
    credit.check_room(application)
    approved = application["requested_amount"]
    if (amount.amount_minor, amount.currency) != (approved["amount_minor"], approved["currency"]):
        message = f"must be what was approved, {written(approved['amount_minor'], approved['currency'])}"
        raise refused([{"field": "amount", "message": message}])


async def _intend(
    kit: StateKit, lock: Lock, caller: Principal, application: Document, keyed: Keyed[Document] | None
) -> Document:
    """Commit that a payment is about to be asked for, and what finds out if nobody comes back to it."""
    tenant_id, application_id = application["tenant_id"], application["_id"]
    store = DisbursementStore(kit)
    actor = actor_of(caller)

    async def work(session: ClientSession) -> Document:
        now = to_the_millisecond(kit.clock.now())
        try:
            await credit.pay(kit, tenant_id, application_id, "disbursing", actor, session=session)
        except InvalidTransitionError as error:  # somebody was quicker
            raise _not_payable(error.extra["current_status"]) from error
        before = await store.find(tenant_id, application_id, session)
        intent = new_disbursement(
            application,
            actor=actor,
            claim=None if keyed is None else keyed.claim.key,
            attempt=1 if before is None else before["attempt"] + 1,
            now=now,
        )
        await store.put(intent, session)
        job = NewJob(
            RESOLVE,
            {"application_id": application_id},
            tenant_id=tenant_id,
            user_id=caller.user_id,
            run_at=now + RESOLVE_AFTER,
        )
        await kit.jobs.enqueue(job, session=session)
        return intent

    return await kit.idempotency.run(keyed, work, transaction=lock.write)


async def _pay(
    kit: StateKit, gateway: Gateway, lock: Lock, intent: Document, *, anew: bool = False
) -> Document:
    """Have the gateway pay what was intended, record what it says, and return the disbursement.

    `anew`: it was asked before, by a request that has been answered or has died. Raises PaymentFailedError,
    which is recorded as well; AnswerOpenError; what `Lock.write` raises.
    """
    order = order_of(intent)
    try:
        payment = await gateway.find(order.key) if anew else None
        if payment is None:
            payment = await gateway.pay(order)
    except PaymentRefusedError as error:
        await lock.write(partial(_record_refusal, kit, intent, str(error), anew))
        raise PaymentFailedError(str(error)) from error
    return await lock.write(partial(_record_payment, kit, intent, payment))


async def _record_payment(
    kit: StateKit, intent: Document, payment: Payment, session: ClientSession
) -> Document:
    tenant_id, application_id = intent["tenant_id"], intent["_id"]
    application = await credit.pay(
        kit, tenant_id, application_id, "disbursed", intent["actor"], session=session
    )
    changes = {
        "state": "paid",
        "settled_at": to_the_millisecond(kit.clock.now()),
        "payment_id": payment.id,
        "transfer_id": ledger.payout_id(application_id),
    }
    paid = await DisbursementStore(kit).settle(intent, changes, session)
    if intent["claim"] is not None:
        await kit.idempotency.revise(intent["claim"], answer(kit, paid), session)
    await ledger.payout(kit, claim_of(application), session)
    return paid


async def _record_refusal(
    kit: StateKit,
    intent: Document,
    reason: str,
    was_answered: bool,
    session: ClientSession,
) -> None:
    tenant_id, application_id = intent["tenant_id"], intent["_id"]
    note = f"The payment gateway refused: {reason}"
    await credit.pay(kit, tenant_id, application_id, "approved", intent["actor"], note=note, session=session)
    settled_at = to_the_millisecond(kit.clock.now())
    changes = {"state": "refused", "settled_at": settled_at, "refusal": reason}
    refused_now = await DisbursementStore(kit).settle(intent, changes, session)
    if intent["claim"] is not None and was_answered:
        await kit.idempotency.revise(intent["claim"], answer(kit, refused_now), session)
    elif intent["claim"] is not None:
        await kit.idempotency.forget(intent["claim"], session)


def _lock(application_id: str) -> str:
    return f"loan:{application_id}"


def _not_payable(current: Status) -> InvalidTransitionError:
    """Return why an application that is not approved is not paid out, with what a reviewer may do instead."""
    asked_for = "Its payment was asked for before; its disbursement says how that stands."
    return InvalidTransitionError(
        "An application",
        current=current,
        wanted="disbursing",
        allowed=allowed(current, "reviewer"),
        hint=asked_for if current in {"disbursing", "disbursed"} else "",
    )
