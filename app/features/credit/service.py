"""The rules of applications: what may be applied for, and how they are decided."""

from typing import Final

from app.core.errors import InvalidTransitionError
from app.core.moments import to_the_millisecond
from app.features.credit import transitions
from app.features.credit.documents import HISTORY_MAX, actor_of, new_application, new_event
from app.features.credit.errors import HistoryFullError
from app.features.credit.schemas import Decision, NewApplication
from app.features.credit.store import ApplicationStore, Change, scope_of
from app.features.credit.transitions import Status
from app.http.validation import refused
from app.state.job_documents import NewJob
from app.state.keyed import Keyed
from app.state.kit import StateKit
from app.state.mongo import ClientSession, Document
from app.state.principals import Principal, Role
from app.state.versions import VersionCheck

APPLICANTS: Final[tuple[Role, ...]] = ("shipper", "dispatcher", "admin")
"""Who may apply: those who may book."""
SCORE: Final = "credit.score"
"""Job {application_id}: look at an application that is new, or that more has become known of."""
GRANT: Final = "credit.grant"
"""Job {application_id}: give the applicant the credit that was approved."""


async def submit(
    kit: StateKit, caller: Principal, application: NewApplication, keyed: Keyed[Document] | None = None
) -> Document:
    """Make an application and return its document.

    Raises ValidationFailedError, StoreUnavailableError, and with a key what `Idempotency.insert` raises.
    """
    tenant = await kit.tenants.get(caller.tenant_id)
    stated = {"requested_amount": application.requested_amount, "annual_revenue": application.annual_revenue}
    foreign = [name for name, money in stated.items() if money and money.currency != tenant.currency]
    if foreign:
        message = f"must be in {tenant.currency}, the currency of your operator"
        raise refused([{"field": f"{name}.currency", "message": message} for name in foreign])
    now = to_the_millisecond(kit.clock.now())
    document = new_application(caller=caller, application=application, now=now)
    return await ApplicationStore(kit).insert(document, [_job(SCORE, document)], keyed)


async def decide(
    kit: StateKit,
    caller: Principal,
    application_id: str,
    decision: Decision,
    *,
    check_version: VersionCheck,
) -> Document:
    """Send an application on, or add a note to it, and return it.

    Raises NotFoundError, what `check_version` raises, InvalidTransitionError, HistoryFullError, in this
    order; VersionConflictError, StoreUnavailableError.
    """
    event = new_event(
        decision.status, actor_of(caller), to_the_millisecond(kit.clock.now()), note=decision.note
    )

    def change(application: Document) -> Change:
        return decided(application, event)

    return await ApplicationStore(kit).change(
        scope_of(caller), application_id, change, check_version=check_version
    )


def decided(application: Document, event: Document) -> Change:
    """Return what a reviewer's decision changes, or the note in it if the status stays.

    Raises InvalidTransitionError, HistoryFullError.
    """
    current, wanted = application["status"], event["status"]
    if wanted != current:
        transitions.check(current, wanted, "reviewer")
    elif event["note"] is None:
        raise InvalidTransitionError(
            "An application",
            current=current,
            wanted=wanted,
            allowed=transitions.allowed(current, "reviewer"),
            hint="To leave it where it is and say something about it, use `note`.",
        )
    else:
        check_room(application)
    approved = wanted == "approved" and wanted != current
    return Change(event, jobs=[_job(GRANT, application)] if approved else ())


async def pay(
    kit: StateKit,
    tenant_id: str,
    application_id: str,
    wanted: Status,
    actor: Document,
    *,
    note: str | None = None,
    session: ClientSession = None,
) -> Document:
    """Take the next step of its payment with an application, in the name of `actor`, and return it.

    For disbursements, whose own records say what was paid; in their transaction, with its `session`. Raises
    NotFoundError, InvalidTransitionError, VersionConflictError if others keep writing, StoreUnavailableError.
    """
    event = new_event(wanted, actor, to_the_millisecond(kit.clock.now()), note=note)

    def change(application: Document) -> Change:
        transitions.check(application["status"], wanted, "payment")
        return Change(event)

    return await ApplicationStore(kit).change(
        {"tenant_id": tenant_id}, application_id, change, session=session
    )


def check_room(application: Document) -> None:
    """Raise HistoryFullError if nothing but a new status may be written any more."""
    if application["version"] >= HISTORY_MAX:
        raise HistoryFullError(HISTORY_MAX)


def _job(kind: str, application: Document) -> NewJob:
    return NewJob(
        kind,
        {"application_id": application["_id"]},
        tenant_id=application["tenant_id"],
        user_id=application["user_id"],
    )
