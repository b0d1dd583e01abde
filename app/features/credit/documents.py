"""An application as it is stored and as it is shown.

Document in `applications`: {_id app_…, tenant_id, user_id, status, version, company_name, company_key,
requested_amount {amount_minor, currency}, terms_days, registration_number, annual_revenue {amount_minor,
currency} or null, years_trading, purpose, reviewer {user_id, name} or null, history [{id evt_…, version, at,
status, actor {user_id, name, role}, note, reviewer?}], outbox (`state.jobs`), idempotency
(`state.idempotency`), created_at, updated_at}.

Every write that moves `version` appends exactly one event, which carries the version that it made: so
`version` is the length of `history`, and whether it is full is known without reading it. `company_key` is
what lists are sorted by. What was applied for never changes; scores, documents and payments are stored
elsewhere, under the application's id.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from app.core.ids import new_id
from app.core.moments import timestamp
from app.features.credit.schemas import NewApplication
from app.features.credit.transitions import LENGTH_MAX, Status
from app.state.mongo import Document
from app.state.principals import Principal

HISTORY_MAX: Final = 500
"""How many events an application may have before it can only be sent on. With the longest notes and names
that makes 2.5 MB, of the 16 that a document may have.
"""
EVENTS_MAX: Final = HISTORY_MAX + LENGTH_MAX
_STATED: Final = (
    "company_name", "requested_amount", "terms_days", "registration_number", "annual_revenue",
    "years_trading", "purpose",
)  # fmt: skip


def new_application(*, caller: Principal, application: NewApplication, now: datetime) -> Document:
    """Return the document of an application that is made now, with the first event of its life."""
    return {
        "_id": new_id("app"),
        "tenant_id": caller.tenant_id,
        "user_id": caller.user_id,
        "status": "pending",
        "version": 1,
        **application.model_dump(),
        "company_key": application.company_name.casefold(),
        "reviewer": None,
        "history": [{**new_event("pending", actor_of(caller), now), "version": 1}],
        "created_at": now,
        "updated_at": now,
    }


def actor_of(caller: Principal) -> Document:
    """Return the caller as an event names who did it."""
    return {"user_id": caller.user_id, "name": caller.name, "role": caller.role}


def new_event(status: Status, actor: Document, now: datetime, *, note: str | None = None) -> Document:
    """Return the event that an application is `status` from now on; the write adds the `version` it makes."""
    return {"id": new_id("evt"), "at": now, "status": status, "actor": actor, "note": note}


def shown(document: Document) -> dict[str, Any]:
    """Return an application as it is answered."""
    return {
        "id": document["_id"],
        "status": document["status"],
        "version": document["version"],
        **{name: document[name] for name in _STATED},
        "reviewer": document["reviewer"],
        "user_id": document["user_id"],
        "created_at": timestamp(document["created_at"]),
        "updated_at": timestamp(document["updated_at"]),
    }


def shown_event(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event as it is answered."""
    return {
        "id": event["id"],
        "version": event["version"],
        "at": timestamp(event["at"]),
        "status": event["status"],
        "actor": event["actor"],
        "note": event["note"],
        "reviewer": event.get("reviewer"),
    }
