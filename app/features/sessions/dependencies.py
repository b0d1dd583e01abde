"""Admission that brings the session along which the path names, in the same round trip to Redis.

Writers too: it refuses who names a version that is over (`state.sessions`).
"""

from typing import Annotated, Final

from fastapi import Depends, Request

from app.core.errors import NotFoundError
from app.core.ids import is_id
from app.http.admission import Admitted, admit
from app.state.principals import Principal, Wanted
from app.state.session_documents import Owner

_TRUE: Final = frozenset({"true", "1", "yes", "y", "on", "t"})
"""What FastAPI reads as true, too; anything else is false, or refused by the route."""


async def _admitted_to_extend(request: Request) -> Admitted:
    extend = not request.scope["query_string"] or request.query_params.get("extend", "true").lower() in _TRUE
    return await _admitted(request, claim=extend)


async def _admitted_to_look(request: Request) -> Admitted:
    return await _admitted(request, claim=False)


async def _admitted(request: Request, *, claim: bool) -> Admitted:
    session_id = request.path_params["session_id"]
    if is_id(session_id, "ses"):
        return await admit(request, Wanted("session", session_id, claim=claim))
    await admit(request)
    raise NotFoundError


ReaderOfSession = Annotated[Admitted, Depends(_admitted_to_extend)]
"""The caller with the session they ask for; the one who is to extend it, unless `extend=false`.

Raises what `admit` raises, and NotFoundError for an id that can't exist, once the caller is known.
"""
CallerWithSession = Annotated[Admitted, Depends(_admitted_to_look)]
"""The same for those who don't extend it by reading it: who writes or deletes."""


def owner_of(principal: Principal) -> Owner:
    """Return whose sessions a caller works on: their own, whatever their role."""
    return Owner(principal.tenant_id, principal.user_id)
