"""`/bookings/drafts`: a user's own unfinished bookings, and nobody else's, not even for an admin."""

from functools import partial
from typing import Annotated

from fastapi import Depends, Request, Response

from app.core.errors import NotFoundError
from app.core.ids import is_id
from app.core.moments import from_milliseconds, to_milliseconds
from app.features.bookings import drafts
from app.features.bookings.form_schemas import DraftOut, DraftSave, NewDraft, Submission
from app.features.bookings.forms import TYPE, Draft, Save
from app.features.bookings.routes import BookersCall, booked, limited_as_booking
from app.features.bookings.schemas import BookingOut
from app.http.admission import Admitted, Caller, Kit, admit
from app.http.etags import IfMatch, WriteCondition, etag
from app.http.idempotency import KeyedCaller, created
from app.http.paging import LIMIT_DEFAULT, PageCursor, PageLimit, decode_cursor, page_of
from app.http.responses import JsonResponse
from app.http.routing import ApiRouter
from app.http.schemas import Page
from app.state.keyed import Answer, Keyed
from app.state.principals import Wanted
from app.state.session_documents import Owner, Session
from app.state.sessions import Made

router = ApiRouter(prefix="/bookings/drafts", tags=["Bookings"])


async def _admitted_with_draft(request: Request) -> Admitted:
    draft_id = request.path_params["draft_id"]
    if is_id(draft_id, "ses"):
        return await admit(request, Wanted("session", draft_id))
    await admit(request)
    raise NotFoundError


Reader = Annotated[Admitted, Depends(_admitted_with_draft)]
"""The caller with the draft they ask for, in one round trip."""


@router.post("", status_code=201, response_model=DraftOut, summary="Begin a draft")
async def create_draft(body: NewDraft, kit: Kit, call: KeyedCaller) -> Response:
    """Begin a draft with whatever there is. `422 session_limit` if the caller has a hundred."""

    def answer_of(made: Made) -> Answer:
        draft = Draft.from_body(made[0].body)
        location = f"{kit.settings.base_path}/bookings/drafts/{draft.id}"
        return created(draft.shown(), location=location, version=draft.version)

    async def create(keyed: Keyed[Made] | None) -> Made:
        save = Save(body.patch, body.step, body.client_id, body.seq)
        return await drafts.create(kit, call.principal, save, keyed), True

    return await call.once(create, answer_of=answer_of)


@router.get("", response_model=Page[DraftOut], summary="List drafts")
async def list_drafts(
    kit: Kit, caller: Caller, cursor: PageCursor = None, limit: PageLimit = LIMIT_DEFAULT
) -> Response:
    """List the caller's drafts with what each one lacks, newest first."""
    position = decode_cursor("drafts", cursor, (int, str))
    before = None if position is None else (from_milliseconds(int(position[0])), str(position[1]))
    owner = Owner(caller.tenant_id, caller.user_id)
    found = await kit.sessions.page(owner, session_type=TYPE, before=before, limit=limit + 1)
    page = page_of(found, limit=limit, kind="drafts", position_of=_position)
    shown = [Draft.from_body(session.body).shown() for session in page["items"]]
    return JsonResponse({**page, "items": shown})


@router.get("/{draft_id}", response_model=DraftOut, summary="Read a draft")
async def read_draft(draft_id: str, kit: Kit, reader: Reader) -> Response:
    """Show a draft. Reading it keeps it alive, as saving does."""
    return _answer(await drafts.read(kit, reader.principal, draft_id, reader.wanted))


@router.patch("/{draft_id}", response_model=DraftOut, summary="Save a draft")
async def save_draft(
    *, draft_id: str, body: DraftSave, kit: Kit, caller: Caller, if_match: IfMatch
) -> Response:
    """Merge what was typed into a draft. Saves of different fields made at the same time all survive.

    `409 draft_submitted` once it is a booking, or becoming one.
    """
    saved = Save(body.patch, body.step, body.client_id, body.seq)
    condition = WriteCondition(if_match, body.version)
    draft, applied = await drafts.save(kit, caller, draft_id, saved, condition)
    return _answer(draft, applied=applied)


@router.delete("/{draft_id}", status_code=204, summary="Delete a draft")
async def delete_draft(draft_id: str, kit: Kit, caller: Caller) -> Response:
    """Delete a draft, at once on every replica. `409 draft_submitted` if it is a booking by now."""
    await drafts.delete(kit, caller, draft_id)
    return Response(status_code=204)


@router.post("/{draft_id}/submit", status_code=201, response_model=BookingOut, summary="Book a draft")
@limited_as_booking
async def submit_draft(
    *,
    request: Request,
    draft_id: str,
    kit: Kit,
    call: BookersCall,
    if_match: IfMatch,
    body: Submission | None = None,
) -> Response:
    """Make a booking of a draft and remove the draft.

    A draft becomes one booking, however often this is sent: whoever sends it again gets the first answer
    again, also when the draft is gone. 422 naming every field that is missing or wrong; then nothing has
    changed.
    """
    condition = WriteCondition(if_match, body.version if body else None)
    return await call.once(
        lambda keyed: drafts.submit(kit, call.principal, draft_id, condition, keyed),
        answer_of=partial(booked, kit),
    )


def _answer(draft: Draft, *, applied: bool = True) -> Response:
    return JsonResponse(draft.shown(applied=applied), headers={"ETag": etag(draft.version)})


def _position(session: Session) -> tuple[int, str]:
    return to_milliseconds(session.created_at), session.id
