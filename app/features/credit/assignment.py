"""Who looks after an application: the caller, or whom an admin names. It binds nobody else's hands."""

from app.core.errors import ForbiddenError
from app.core.moments import to_the_millisecond
from app.features.credit.documents import actor_of, new_event
from app.features.credit.schemas import Assignment
from app.features.credit.service import check_room
from app.features.credit.store import REVIEWERS, ApplicationStore, Change, scope_of
from app.http.validation import refused
from app.state.kit import StateKit
from app.state.mongo import Document
from app.state.principals import Principal
from app.state.versions import VersionCheck


async def assign(
    kit: StateKit,
    caller: Principal,
    application_id: str,
    assignment: Assignment,
    *,
    check_version: VersionCheck,
) -> Document:
    """Give an application to a reviewer and return it.

    Raises ForbiddenError for whom only an admin may name, ValidationFailedError for who can't review it,
    NotFoundError, what `check_version` raises, HistoryFullError; VersionConflictError,
    StoreUnavailableError.
    """
    reviewer = await _reviewer(kit, caller, assignment.reviewer_id)
    now = to_the_millisecond(kit.clock.now())

    def change(application: Document) -> Change:
        check_room(application)
        event = new_event(application["status"], actor_of(caller), now)
        return Change({**event, "reviewer": reviewer}, {"reviewer": reviewer})

    return await ApplicationStore(kit).change(
        scope_of(caller), application_id, change, check_version=check_version
    )


async def _reviewer(kit: StateKit, caller: Principal, user_id: str | None) -> Document:
    """Return who is meant, as an application names them."""
    if user_id is None or user_id == caller.user_id:
        return {"user_id": caller.user_id, "name": caller.name}
    if caller.role != "admin":
        raise ForbiddenError("Only an admin may give an application to somebody else.")
    account = await kit.accounts.find(tenant_id=caller.tenant_id, user_id=user_id)
    if account is None or not account.active or account.role not in REVIEWERS:
        raise refused([{"field": "reviewer_id", "message": f"must be an active {' or '.join(REVIEWERS)}"}])
    return {"user_id": account.id, "name": account.name}
