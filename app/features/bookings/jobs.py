"""What follows from a booking, done by a worker if the request that made it has not."""

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final

from app.core.errors import NotFoundError
from app.state.job_documents import NewJob
from app.state.job_run import Handler, Run
from app.state.kit import StateKit
from app.state.session_documents import Owner

COLLECTION: Final = "bookings"
"""Whose documents have an outbox."""
FOLLOW_UP: Final = "booking.follow_up"


def follow_up(booking: Mapping[str, Any]) -> NewJob:
    """Return the job that goes into the outbox of a booking that is made."""
    return NewJob(
        FOLLOW_UP,
        {"booking_id": booking["_id"], "draft_id": booking.get("draft_id")},
        tenant_id=booking["tenant_id"],
        user_id=booking["user_id"],
    )


def handlers(kit: StateKit) -> list[Handler]:
    """Return the handlers of this feature."""
    return [Handler(FOLLOW_UP, partial(_follow_up, kit))]


async def _follow_up(kit: StateKit, run: Run) -> Mapping[str, Any]:
    """Remove the draft that the booking was made from. Idempotent: a draft's id is never used again."""
    job = run.job
    draft_id = job.payload["draft_id"]
    removed = False
    if draft_id is not None:
        with suppress(NotFoundError):
            await kit.sessions.delete(Owner(job.tenant_id, job.user_id), draft_id)
            removed = True
    return {"booking_id": job.payload["booking_id"], "draft_removed": removed}
