"""`/sessions`: a user's own, and nobody else's, not even for an admin."""

from typing import Annotated

import orjson
from fastapi import Query, Response

from app.core.moments import from_milliseconds, to_milliseconds
from app.features.sessions import service
from app.features.sessions.dependencies import CallerWithSession, ReaderOfSession, owner_of
from app.features.sessions.schemas import NewSession, SessionData, SessionOut, SessionPatch
from app.http.admission import Admitted, Caller, Kit
from app.http.etags import IfMatch, WriteCondition, etag
from app.http.idempotency import KeyedCaller, created
from app.http.paging import LIMIT_DEFAULT, PageCursor, PageLimit, decode_cursor, page_of
from app.http.responses import JsonResponse
from app.http.routing import ApiRouter
from app.http.schemas import Page
from app.state.keyed import Answer
from app.state.kit import StateKit
from app.state.session_documents import Reading, Session, SessionType
from app.state.sessions import Change, Made

router = ApiRouter(prefix="/sessions", tags=["Sessions"])


@router.post(
    "",
    status_code=201,
    response_model=SessionOut,
    responses={200: {"model": SessionOut, "description": "The preferences that were there, replaced."}},
    summary="Make a session",
)
async def create_session(body: NewSession, kit: Kit, call: KeyedCaller) -> Response:
    """Make a session. Of `preferences` a user has one: posting them again replaces it and answers 200.

    `422 session_limit` if there are a hundred of this type.
    """

    def answer_of(made: Made) -> Answer:
        session, is_new = made
        location = f"{kit.settings.base_path}/sessions/{session.id}"
        status = 201 if is_new else 200
        return created(session.body, location=location, version=session.version, status=status)

    owner = owner_of(call.principal)
    return await call.once(
        lambda keyed: service.create(
            kit.sessions, owner, body.type, body.data, ttl_s=body.ttl_seconds, keyed=keyed
        ),
        answer_of=answer_of,
    )


@router.get("", response_model=Page[SessionOut], summary="List sessions")
async def list_sessions(
    kit: Kit,
    caller: Caller,
    session_type: Annotated[
        SessionType | None, Query(alias="type", description="Only sessions of this type.")
    ] = None,
    cursor: PageCursor = None,
    limit: PageLimit = LIMIT_DEFAULT,
) -> Response:
    """List the caller's living sessions, newest first. Listing is no access: it extends nothing."""
    position = decode_cursor("sessions", cursor, (int, str))
    before = None if position is None else (from_milliseconds(int(position[0])), str(position[1]))
    found = await kit.sessions.page(
        owner_of(caller), session_type=session_type, before=before, limit=limit + 1
    )
    page = page_of(found, limit=limit, kind="sessions", position_of=_position)
    return JsonResponse({**page, "items": [orjson.Fragment(session.body) for session in page["items"]]})


@router.get("/{session_id}", response_model=SessionOut, summary="Read a session")
async def read_session(
    session_id: str,
    kit: Kit,
    reader: ReaderOfSession,
    extend: Annotated[bool, Query(description="Whether this access keeps the session alive.")] = True,
) -> Response:
    """Read a session. Once a tenth of its life is spent an access moves its end on; `version` stays."""
    found = await kit.sessions.read(owner_of(reader.principal), session_id, reader.wanted, extend=extend)
    return _answer(found)


@router.put("/{session_id}", response_model=SessionOut, summary="Replace a session's data")
async def replace_session(
    session_id: str, body: SessionData, kit: Kit, caller: CallerWithSession, if_match: IfMatch
) -> Response:
    """Replace the data. Without `version` or `If-Match` the last one wins."""
    condition = WriteCondition(if_match, body.version)
    return await _write(kit, caller, session_id, service.replacing(body.data), condition)


@router.patch("/{session_id}", response_model=SessionOut, summary="Merge into a session's data")
async def patch_session(
    session_id: str, body: SessionPatch, kit: Kit, caller: CallerWithSession, if_match: IfMatch
) -> Response:
    """Merge a patch into the data. Patches of different members made at the same time all survive."""
    condition = WriteCondition(if_match, body.version)
    return await _write(kit, caller, session_id, service.merging(body.data), condition)


@router.delete("/{session_id}", status_code=204, summary="Delete a session")
async def delete_session(session_id: str, kit: Kit, caller: CallerWithSession) -> Response:
    """Delete a session, at once on every replica."""
    await service.delete(kit.sessions, owner_of(caller.principal), session_id, caller.wanted)
    return Response(status_code=204)


async def _write(
    kit: StateKit, caller: Admitted, session_id: str, change: Change, condition: WriteCondition
) -> Response:
    session = await kit.sessions.mutate(
        owner_of(caller.principal),
        session_id,
        change,
        caller.wanted,
        check_version=condition.check,
        newest_named=condition.newest_named,
    )
    return _answer(session.reading)


def _answer(reading: Reading) -> Response:
    return JsonResponse(reading.body, headers={"ETag": etag(reading.version)})


def _position(session: Session) -> tuple[int, str]:
    return to_milliseconds(session.created_at), session.id
