"""The rules of sessions that `state.sessions` does not know: what may be written here, and how."""

from typing import Any

from app.core.errors import ValidationFailedError
from app.core.merge_patch import merge_patch
from app.state.hot import HotRead
from app.state.keyed import Keyed
from app.state.session_documents import Owner, Session, SessionType
from app.state.sessions import SINGLE, Made, Sessions
from app.state.versions import VersionCheck


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

    Raises WrittenElsewhereError, and as `Sessions.create` and `Sessions.put_single` do.
    """
    _refuse_drafts(session_type)
    if session_type in SINGLE:
        return await sessions.put_single(owner, session_type, data, ttl_s=ttl_s, keyed=keyed)
    return await sessions.create(owner, session_type, data, ttl_s=ttl_s, keyed=keyed), True


async def replace(
    sessions: Sessions, owner: Owner, session_id: str, data: dict[str, Any], check_version: VersionCheck
) -> Session:
    """Give a session other data. Raises WrittenElsewhereError, and as `Sessions.mutate` does."""

    def put(session: Session) -> dict[str, Any]:
        _refuse_drafts(session.type)
        return data

    return await sessions.mutate(owner, session_id, put, check_version=check_version)


async def merge(
    sessions: Sessions, owner: Owner, session_id: str, patch: dict[str, Any], check_version: VersionCheck
) -> Session:
    """Merge a patch into a session's data. Raises WrittenElsewhereError, and as `Sessions.mutate` does."""

    def patched(session: Session) -> dict[str, Any]:
        _refuse_drafts(session.type)
        merged: dict[str, Any] = merge_patch(session.data, patch)
        return merged

    return await sessions.mutate(owner, session_id, patched, check_version=check_version)


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
