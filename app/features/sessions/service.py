"""The rules of sessions that `state.sessions` does not know: what may be written here, and how."""

from typing import Any

from app.core.errors import ValidationFailedError
from app.core.merge_patch import merge_patch
from app.features.sessions.shapes import check_shape
from app.state.hot import HotRead
from app.state.keyed import Keyed
from app.state.session_documents import Owner, Session, SessionType
from app.state.session_slots import SINGLE
from app.state.sessions import Change, Made, Sessions


class WrittenElsewhereError(ValidationFailedError):
    """Booking drafts have a route of their own, which keeps late saves from undoing newer ones."""

    def __init__(self) -> None:
        """Name that route."""
        super().__init__(
            "Booking drafts are written through /bookings/drafts; here they can be read and listed.",
            errors=[{"field": "type", "message": "write booking drafts through /bookings/drafts"}],
        )


async def create(
    sessions: Sessions,
    owner: Owner,
    session_type: SessionType,
    data: dict[str, Any],
    *,
    ttl_s: int | None,
    keyed: Keyed[Made] | None,
) -> Made:
    """Make a session; of a type of which a user has one, write that one. True with it if it is new.

    Raises WrittenElsewhereError, ValidationFailedError for a shape that its type doesn't have, and as
    `Sessions.create` and `Sessions.put_single` do.
    """
    _refuse_drafts(session_type)
    check_shape(session_type, data)
    if session_type in SINGLE:
        return await sessions.put_single(owner, session_type, data, ttl_s=ttl_s, keyed=keyed)
    return await sessions.create(owner, session_type, data, ttl_s=ttl_s, keyed=keyed), True


def replacing(data: dict[str, Any]) -> Change:
    """Return the change that gives a session other data. It raises as `create` does."""

    def put(session: Session) -> dict[str, Any]:
        _refuse_drafts(session.type)
        check_shape(session.type, data)
        return data

    return put


def merging(patch: dict[str, Any]) -> Change:
    """Return the change that merges a patch into a session's data. It raises as `create` does."""

    def patched(session: Session) -> dict[str, Any]:
        _refuse_drafts(session.type)
        merged: dict[str, Any] = merge_patch(session.data, patch)
        check_shape(session.type, merged)
        return merged

    return patched


async def delete(sessions: Sessions, owner: Owner, session_id: str, seen: HotRead) -> None:
    """Delete a session. Raises WrittenElsewhereError, NotFoundError, StoreUnavailableError.

    A session's type never changes, so what is known of it from before stays true.
    """
    found = await sessions.read(owner, session_id, seen, extend=False)
    _refuse_drafts(found.type)
    await sessions.delete(owner, session_id)


def _refuse_drafts(session_type: SessionType) -> None:
    if session_type == "booking_draft":
        raise WrittenElsewhereError
