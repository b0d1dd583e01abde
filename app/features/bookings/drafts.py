"""Drafts: what was typed survives, in whatever order it arrives; and a draft becomes one booking.

Saving. A save is a compare-and-set of the session that holds the draft. Those of different fields all
survive; of the same field the later one wins. A save that its client has overtaken itself changes nothing.

Submitting takes three steps, each of which may be the last one that its process takes:

1. *Close* the draft: a compare-and-set that puts both addresses, as they are now, into it. From here on it
   can't change any more, and nothing speaks against booking it. A save that was acknowledged before is in;
   one that comes after is told so (`409 draft_submitted`): it is neither lost in silence nor does it bring
   the draft back.
2. *Insert* the booking, with `draft_id` under a unique index. This decides: whoever comes second, in whatever
   request and with whatever key, finds the booking of the first and gives the same answer.
3. *Remove* the draft. The job in the booking's outbox does the same, should the process have died.

Whoever meets a closed draft (a retry, another tab's save, somebody who deletes it) goes on with step 2, so a
process that died after step 1 leaves nothing that stands still. A draft's id thus is a key of its own: to
submit it again, with or without an `Idempotency-Key`, gives the first answer again, also after it is gone.

Two things may still refuse step 2: a key that belongs to another request, and a credit line that does not
leave the price any more, since the hold of it decides. Then the draft is opened again, and whoever met it
closed goes on with what they wanted. Between a refusal and that, somebody else's step 2 may succeed after
all (credit came free at that moment): then a save that comes in between is lost with the draft.
"""

from contextlib import suppress
from dataclasses import replace
from typing import Any

from app.core.errors import CargoFlowError, NotFoundError, StoreUnavailableError, VersionConflictError
from app.features.bookings import payments, service
from app.features.bookings.documents import as_made
from app.features.bookings.errors import CreditRefusedError, DraftSubmittedError
from app.features.bookings.forms import TYPE, Draft, Form, Save
from app.features.bookings.store import BookingStore
from app.http.etags import WriteCondition
from app.http.validation import refused
from app.state.hot import MISS, HotRead
from app.state.keyed import Keyed, KeyReusedError
from app.state.kit import StateKit
from app.state.mongo import Document
from app.state.patience import Patience
from app.state.principals import Principal
from app.state.session_documents import Owner, Session
from app.state.sessions import Made


class _ClosedError(Exception):
    """A signal out of a change: the draft is being submitted."""


async def create(kit: StateKit, caller: Principal, save: Save, keyed: Keyed[Made] | None = None) -> Session:
    """Begin a draft with a first save and return the session that holds it. Raises as `Sessions.create`."""
    form = Form().with_save(save, kit.clock.now())
    return await kit.sessions.create(_owner(caller), TYPE, form.session_data, keyed=keyed)


async def read(kit: StateKit, caller: Principal, draft_id: str, seen: HotRead = MISS) -> Draft:
    """Return a draft. Raises NotFoundError, StoreUnavailableError."""
    reading = await kit.sessions.read(_owner(caller), draft_id, seen)
    return Draft.from_body(reading.body)


async def save(
    kit: StateKit, caller: Principal, draft_id: str, saved: Save, condition: WriteCondition
) -> tuple[Draft, bool]:
    """Merge a save into a draft and return the draft, and whether that changed it.

    A save that was seen before is told so whatever version it names: it may be a retry. Raises NotFoundError,
    DraftSubmittedError, what `condition` raises, PayloadTooLargeError, and as `Sessions.mutate` does.
    """
    applied = False

    def change(session: Session) -> dict[str, Any] | None:
        nonlocal applied
        form = _form_of(session)
        if form.places is not None:
            raise _ClosedError
        applied = not form.has_seen(saved)
        if not applied:
            return None
        condition.check(session.version)
        return form.with_save(saved, kit.clock.now()).session_data

    patience = Patience(kit.clock)
    while True:
        try:
            session = await kit.sessions.mutate(_owner(caller), draft_id, change)
        except (_ClosedError, NotFoundError) as error:
            refusal = await _refusal(kit, caller, draft_id, error)
            if not (isinstance(refusal, CreditRefusedError) and await patience.wait()):
                raise refusal from None
        else:
            return Draft.from_body(session.body), applied


async def delete(kit: StateKit, caller: Principal, draft_id: str) -> None:
    """Delete a draft.

    Raises NotFoundError; DraftSubmittedError if it is a booking by now; VersionConflictError if others keep
    saving; StoreUnavailableError.
    """
    patience = Patience(kit.clock)
    while True:
        try:
            draft = await _peek(kit, caller, draft_id)
            if draft.form.places is None:
                return await kit.sessions.delete(_owner(caller), draft_id, version=draft.version)
        except NotFoundError as error:
            raise await _refusal(kit, caller, draft_id, error) from None
        except VersionConflictError:
            if not await patience.wait():
                raise
        else:
            refusal = await _refusal(kit, caller, draft_id, _ClosedError())
            if not (isinstance(refusal, CreditRefusedError) and await patience.wait()):
                raise refusal


async def submit(
    kit: StateKit,
    caller: Principal,
    draft_id: str,
    condition: WriteCondition | None = None,
    keyed: Keyed[Document] | None = None,
) -> Document:
    """Make a booking of a draft, remove the draft, and return the booking as it was made.

    Raises NotFoundError; what `condition` raises if the draft is still open; ValidationFailedError naming
    every field that is missing or wrong; VersionConflictError if others keep saving; StoreUnavailableError;
    and with a key what `Idempotency.insert` raises.
    """
    bookings = BookingStore(kit)
    patience = Patience(kit.clock)
    while True:
        try:
            draft = await _peek(kit, caller, draft_id)
            closed = draft if draft.form.places is not None else await _close(kit, caller, draft, condition)
        except NotFoundError:
            return as_made(await bookings.get_by_draft(caller, draft_id))
        if closed is not None:
            booking = await _insert(kit, caller, closed, keyed)
            with suppress(NotFoundError, StoreUnavailableError):  # the job of the booking's outbox remains
                await kit.sessions.delete(_owner(caller), draft_id)
            return as_made(booking)
        if not await patience.wait():
            raise VersionConflictError(current_version=draft.version)


async def _refusal(
    kit: StateKit, caller: Principal, draft_id: str, error: _ClosedError | NotFoundError
) -> CargoFlowError:
    """Return what to tell somebody whose draft is closed or gone, having finished a submit that was begun.

    A CreditRefusedError says that the draft is open again.
    """
    if isinstance(error, _ClosedError):
        try:
            return DraftSubmittedError((await submit(kit, caller, draft_id))["_id"])
        except CreditRefusedError as refused_credit:
            return refused_credit
    booking = await BookingStore(kit).find_by_draft(caller, draft_id)
    return error if booking is None else DraftSubmittedError(booking["_id"])


async def _close(
    kit: StateKit, caller: Principal, draft: Draft, condition: WriteCondition | None
) -> Draft | None:
    """Check a draft and close it as of the version that was checked; None if it has changed meanwhile."""
    if condition is not None:
        condition.check(draft.version)
    booking, missing, invalid = draft.form.check()
    if booking is None:
        raise refused(missing + invalid)
    places = await service.resolve(kit, caller, booking)
    if booking.payment == "credit":
        await payments.check(kit, await service.prepare(kit, caller, booking, places))
    closed = replace(draft.form, places=places)

    def as_checked(version: int) -> None:
        if version != draft.version:
            raise VersionConflictError(current_version=version)

    try:
        session = await kit.sessions.mutate(
            _owner(caller), draft.id, lambda _: closed.session_data, check_version=as_checked
        )
    except VersionConflictError:
        return None
    return Draft.from_body(session.body)


async def _insert(kit: StateKit, caller: Principal, closed: Draft, keyed: Keyed[Document] | None) -> Document:
    """Insert the booking that a closed draft makes and return it, or the one that it has become already."""
    bookings = BookingStore(kit)
    booking, _, _ = closed.form.check()
    if booking is None or closed.form.places is None:
        raise ValueError("this draft was not closed")
    document = await service.prepare(kit, caller, booking, closed.form.places)
    try:
        made = await bookings.insert({**document, "draft_id": closed.id}, keyed)
    except (KeyReusedError, CreditRefusedError):
        await _reopen(kit, caller, closed)
        raise
    return made or await bookings.get_by_draft(caller, closed.id)


async def _reopen(kit: StateKit, caller: Principal, closed: Draft) -> None:
    """Take back that a draft was closed: its key turned out to be another request's, or credit lacks.

    Should somebody else be finishing it at this moment, they remove it just the same.
    """

    def as_closed(version: int) -> None:
        if version != closed.version:
            raise VersionConflictError(current_version=version)

    opened = replace(closed.form, places=None).session_data
    with suppress(NotFoundError, VersionConflictError):
        await kit.sessions.mutate(_owner(caller), closed.id, lambda _: opened, check_version=as_closed)


async def _peek(kit: StateKit, caller: Principal, draft_id: str) -> Draft:
    """Return a draft without extending its life."""
    reading = await kit.sessions.read(_owner(caller), draft_id, extend=False)
    return Draft.from_body(reading.body)


def _form_of(session: Session) -> Form:
    if session.type != TYPE:
        raise NotFoundError
    return Form.from_session(session.data)


def _owner(caller: Principal) -> Owner:
    return Owner(caller.tenant_id, caller.user_id)
