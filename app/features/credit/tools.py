"""Applications as a tool: what the routes show, for the same people."""

from typing import Annotated, Final

from pydantic import Field

from app.features.credit.documents import EVENTS_MAX, shown, shown_event
from app.features.credit.schemas import ApplicationId
from app.features.credit.store import ApplicationStore, Filters, scope_of
from app.features.credit.transitions import Status
from app.http.schemas import JsonObject, StrictModel
from app.http.tools import Tool
from app.state.kit import StateKit
from app.state.mongo import Document
from app.state.principals import Principal

LIMIT_MAX: Final = 20
EVENTS_SHOWN: Final = 20
"""The last ones, of one application."""
_SHOWN: Final = (
    "id", "status", "company_name", "requested_amount", "terms_days", "reviewer", "created_at", "updated_at",
)  # fmt: skip


class ApplicationStatus(StrictModel):
    """Which applications: one, or the newest."""

    application_id: ApplicationId | None = None
    """app_…; then its history comes along."""
    status: Status | None = None
    """Only those that are this."""
    limit: Annotated[int, Field(ge=1, le=LIMIT_MAX)] = 10


async def _application_status(kit: StateKit, caller: Principal, wanted: ApplicationStatus) -> JsonObject:
    store, scope = ApplicationStore(kit), scope_of(caller)
    if wanted.application_id is not None:
        row = await store.get(scope, wanted.application_id)
        after = max(0, row["version"] - EVENTS_SHOWN)
        events = await store.events(scope, row["_id"], after=after, limit=EVENTS_MAX)
        return {
            "applications": [_summary(row)],
            "history": [shown_event(event) for event in events],
            "more": False,
        }
    rows = await store.page(scope, Filters(wanted.status), sort="-created_at", skip=0, limit=wanted.limit + 1)
    return {
        "applications": [_summary(row) for row in rows[: wanted.limit]],
        "more": len(rows) > wanted.limit,
    }


def _summary(row: Document) -> JsonObject:
    whole = shown(row)
    return {name: whole[name] for name in _SHOWN}


TOOLS: Final = (
    Tool(
        "application_status",
        "How applications for trade credit stand, newest first: the user's own, or for underwriters and "
        "admins the whole company's. With an id: one of them, and who decided what.",
        ApplicationStatus,
        _application_status,
    ),
)
