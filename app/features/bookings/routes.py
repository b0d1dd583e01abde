"""`/bookings` and `/quotes`: their owner's, and for dispatchers and admins the whole tenant's."""

from functools import partial
from typing import Annotated

from fastapi import Depends, Query, Request, Response

from app.core.moments import from_milliseconds
from app.features.bookings import lists, service
from app.features.bookings.documents import reference_key, shown, shown_event
from app.features.bookings.form_schemas import NewQuote
from app.features.bookings.numbers import read_number
from app.features.bookings.schemas import (
    BookingEvent,
    BookingOut,
    Cancellation,
    NewBooking,
    QuoteOut,
    StatusChange,
)
from app.features.bookings.store import BookingStore, Filters
from app.features.bookings.transitions import Status
from app.http.admission import Caller, Kit, requires
from app.http.cached import cached
from app.http.etags import IfMatch, WriteCondition, etag
from app.http.idempotency import KeyedCall, KeyedCaller, created, keyed_caller
from app.http.limits import limiter, per_user, setting
from app.http.paging import LIMIT_DEFAULT, PageCursor, PageLimit, decode_cursor
from app.http.responses import JsonResponse, encode
from app.http.routing import ApiRouter
from app.http.schemas import Page
from app.state.keyed import Answer
from app.state.kit import StateKit
from app.state.mongo import Document
from app.state.principals import Principal

router = ApiRouter(tags=["Bookings"])
limited_as_booking = limiter.shared_limit(setting("limit_booking"), scope="booking", key_func=per_user)

Booker = Annotated[Principal, Depends(requires(*service.BOOKERS))]
BookersCall = Annotated[KeyedCall, Depends(keyed_caller(*service.BOOKERS, within="bookings"))]
StaffCall = Annotated[KeyedCall, Depends(keyed_caller("dispatcher", "admin"))]


async def _store(kit: Kit) -> BookingStore:
    return BookingStore(kit)


Store = Annotated[BookingStore, Depends(_store)]


@router.post("/quotes", response_model=QuoteOut, summary="Ask for a price")
async def make_quote(body: NewQuote, kit: Kit, caller: Booker) -> Response:
    """Price a shipment, line by line. The same shipment at the same lead time costs the same."""
    return cached(await service.quote(kit, caller, body))


@router.post("/bookings", status_code=201, response_model=BookingOut, summary="Book a shipment")
@limited_as_booking
async def create_booking(request: Request, body: NewBooking, kit: Kit, call: BookersCall) -> Response:
    """Book a shipment at the price of this moment."""
    return await call.once(
        lambda keyed: service.book(kit, call.principal, body, keyed), answer_of=partial(booked, kit)
    )


@router.get("/bookings", response_model=Page[BookingOut], summary="List bookings")
async def list_bookings(
    *,
    kit: Kit,
    caller: Caller,
    status: Annotated[Status | None, Query(description="Only those that are this.")] = None,
    number: Annotated[
        str | None, Query(max_length=40, description="The one of this number, however it is written.")
    ] = None,
    reference: Annotated[
        str | None, Query(max_length=100, description="Those of this reference; case doesn't matter.")
    ] = None,
    cursor: PageCursor = None,
    limit: PageLimit = LIMIT_DEFAULT,
) -> Response:
    """List the caller's bookings, or for dispatchers and admins the tenant's, newest first."""
    position = decode_cursor(lists.CURSOR_KIND, cursor, (int, str))
    before = None if position is None else (from_milliseconds(int(position[0])), str(position[1]))
    filters = Filters(
        status=status,
        number=None if number is None else read_number(number) or "",
        reference_key=None if reference is None else reference_key(reference),
    )
    return cached(await lists.page(kit, caller, filters, before=before, limit=limit))


@router.get("/bookings/{booking_id}", response_model=BookingOut, summary="Read a booking")
async def read_booking(booking_id: str, caller: Caller, store: Store) -> Response:
    """Show a booking."""
    return _answer(await store.get(caller, booking_id))


@router.get(
    "/bookings/{booking_id}/events", response_model=Page[BookingEvent], summary="Read a booking's timeline"
)
async def list_events(booking_id: str, caller: Caller, store: Store) -> Response:
    """List what happened to a booking, oldest first. There are few: the list is one page."""
    booking = await store.get(caller, booking_id)
    return JsonResponse({"items": [shown_event(event) for event in booking["events"]], "next_cursor": None})


@router.post("/bookings/{booking_id}/cancel", response_model=BookingOut, summary="Cancel a booking")
async def cancel_booking(
    *, booking_id: str, kit: Kit, call: KeyedCaller, if_match: IfMatch, body: Cancellation | None = None
) -> Response:
    """Call a booking off, which its owner and staff may until it is picked up. What it holds of a credit line
    is let go.

    `409 invalid_transition` after that, with what is allowed instead.
    """
    wanted = body or Cancellation()
    condition = WriteCondition(if_match, wanted.version)
    return await call.once(
        lambda keyed: service.move(
            kit,
            call.principal,
            booking_id,
            "cancelled",
            note=wanted.note,
            check_version=condition.check,
            keyed=keyed,
        ),
        answer_of=_moved,
    )


@router.post("/bookings/{booking_id}/status", response_model=BookingOut, summary="Move a booking on")
async def change_status(
    *, booking_id: str, body: StatusChange, kit: Kit, call: StaffCall, if_match: IfMatch
) -> Response:
    """Move a booking on by hand: booked, assigned, picked_up, in_transit, delivered, closed. Delivery takes
    what was held of a credit line.

    `409 invalid_transition`, with what is allowed, for anything else.
    """
    condition = WriteCondition(if_match, body.version)
    return await call.once(
        lambda keyed: service.move(
            kit,
            call.principal,
            booking_id,
            body.status,
            note=body.note,
            check_version=condition.check,
            keyed=keyed,
        ),
        answer_of=_moved,
    )


def booked(kit: StateKit, document: Document) -> Answer:
    """Return the answer to whoever made this booking."""
    location = f"{kit.settings.base_path}/bookings/{document['_id']}"
    return created(shown(document), location=location, version=document["version"])


def _moved(document: Document) -> Answer:
    return Answer(200, encode(shown(document)), {"ETag": etag(document["version"])})


def _answer(document: Document) -> Response:
    return JsonResponse(shown(document), headers={"ETag": etag(document["version"])})
