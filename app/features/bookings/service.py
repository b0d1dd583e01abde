"""The rules of bookings: what can be booked, what it costs, and where it may go."""

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, TypeAlias

from app.core.errors import NotFoundError
from app.core.moments import to_the_millisecond
from app.features.addresses.places import locate
from app.features.addresses.service import FIELDS, with_location
from app.features.addresses.store import AddressStore
from app.features.bookings import transitions
from app.features.bookings.cached import quote_entry
from app.features.bookings.documents import new_booking, new_event, shown_price, stored_price
from app.features.bookings.form_schemas import FormPlace, NewQuote
from app.features.bookings.numbers import new_number
from app.features.bookings.pricing import Point, Shipment, price_of
from app.features.bookings.schemas import AddressReference, BookingAddress, NewBooking
from app.features.bookings.store import BookingStore, is_staff
from app.features.bookings.transitions import Party, Status
from app.http.responses import encode
from app.http.validation import FieldErrors, refused
from app.state.cache import CacheRead
from app.state.keyed import Keyed
from app.state.kit import StateKit
from app.state.mongo import Document
from app.state.principals import Principal, Role
from app.state.session_documents import Owner
from app.state.versions import VersionCheck

BOOKERS: Final[tuple[Role, ...]] = ("shipper", "dispatcher", "admin")
"""Who may book and ask for prices."""
AHEAD_MAX: Final = timedelta(days=366)
"""How far ahead a pick-up may be booked."""
LEAD_TIME_ASSUMED: Final = timedelta(days=7)
"""For a quote that names no pick-up."""

Places: TypeAlias = Mapping[str, Mapping[str, Any]]
"""The addresses `pickup` and `delivery` of a booking in full, each with its location."""


async def book(
    kit: StateKit, caller: Principal, booking: NewBooking, keyed: Keyed[Document] | None = None
) -> Document:
    """Make a booking and return its document.

    Raises ValidationFailedError naming every field that stands in the way, CreditRefusedError among them,
    StoreUnavailableError, and with a key what `Idempotency.insert` raises.
    """
    document = await prepare(kit, caller, booking, await resolve(kit, caller, booking))
    made = await BookingStore(kit).insert(document, keyed)
    if made is None:
        raise ValueError("only what comes from a draft can be booked already")
    return made


async def resolve(kit: StateKit, caller: Principal, booking: NewBooking) -> Places:
    """Return both places in full, as they are now. After this nothing but lack of credit speaks against the
    booking any more.

    Raises ValidationFailedError naming every field that does, StoreUnavailableError.
    """
    pickup, wrong_pickup = await _resolved(kit, caller, "pickup", booking.pickup)
    delivery, wrong_delivery = await _resolved(kit, caller, "delivery", booking.delivery)
    errors = wrong_pickup + wrong_delivery
    errors += _time_errors(booking.pickup_at, kit.clock.now())
    if errors:
        raise refused(errors)
    return {"pickup": pickup, "delivery": delivery}


async def prepare(kit: StateKit, caller: Principal, booking: NewBooking, places: Places) -> Document:
    """Return the document of a booking, priced and ready to be inserted."""
    now = to_the_millisecond(kit.clock.now())
    tenant = await kit.tenants.get(caller.tenant_id)
    shipment = Shipment(
        origin=_point(places["pickup"]["location"]),
        destination=_point(places["delivery"]["location"]),
        equipment=booking.equipment,
        weight_kg=booking.cargo.exact_weight_kg,
        hazardous=booking.cargo.hazardous,
        lead_time=booking.pickup_at - now,
    )
    return new_booking(
        caller=caller,
        booking=booking,
        pickup=places["pickup"],
        delivery=places["delivery"],
        price=price_of(shipment, tenant.currency),
        number=new_number(),
        now=now,
    )


async def quote(kit: StateKit, caller: Principal, wanted: NewQuote) -> CacheRead:
    """Return what a shipment would cost, as it is answered. Raises ValidationFailedError,
    StoreUnavailableError.
    """
    now = kit.clock.now()
    errors = [] if wanted.pickup_at is None else _time_errors(wanted.pickup_at, now)
    origin, wrong_pickup = await _where(kit, caller, "pickup", wanted.pickup)
    destination, wrong_delivery = await _where(kit, caller, "delivery", wanted.delivery)
    errors += wrong_pickup + wrong_delivery
    if origin is None or destination is None or errors:
        raise refused(errors)
    shipment = Shipment(
        origin=origin,
        destination=destination,
        equipment=wanted.equipment,
        weight_kg=Decimal(str(wanted.cargo.weight_kg)),
        hazardous=bool(wanted.cargo.hazardous),
        lead_time=LEAD_TIME_ASSUMED if wanted.pickup_at is None else wanted.pickup_at - now,
    )

    async def load() -> bytes:
        tenant = await kit.tenants.get(caller.tenant_id)
        return encode(shown_price(stored_price(price_of(shipment, tenant.currency))))

    return await kit.cache.read(quote_entry(caller.tenant_id, shipment), load)


async def move(
    kit: StateKit,
    caller: Principal,
    booking_id: str,
    wanted: Status,
    *,
    note: str | None,
    check_version: VersionCheck,
    keyed: Keyed[Document] | None = None,
) -> Document:
    """Send a booking on to another status and return it.

    Raises NotFoundError, what `check_version` raises, InvalidTransitionError, ForbiddenError, in this order;
    VersionConflictError, StoreUnavailableError, and with a key what `Idempotency.run` raises.
    """
    party: Party = "staff" if is_staff(caller) else "owner"
    now = to_the_millisecond(kit.clock.now())

    def decide(booking: Document) -> Document:
        transitions.check(booking["status"], wanted, party)
        events = [*booking["events"], new_event(wanted, caller, now, note=note)]
        return {"status": wanted, "events": events, "updated_at": now}

    return await BookingStore(kit).change(
        caller, booking_id, decide, check_version=check_version, keyed=keyed
    )


async def _resolved(
    kit: StateKit, caller: Principal, field: str, place: BookingAddress | AddressReference
) -> tuple[Mapping[str, Any], FieldErrors]:
    """Return an address in full, copied from the address book if it refers to it, and what is wrong."""
    if isinstance(place, AddressReference):
        entry = await _entry(kit, caller, place.address_id)
        if entry is None:
            return {}, [_no_such_entry(field)]
        address: Mapping[str, Any] = {"address_id": entry["_id"], **{name: entry[name] for name in FIELDS}}
    else:
        address = await with_location(place)
    return address, [] if address["location"] is not None else [_no_such_city(field)]


async def _where(
    kit: StateKit, caller: Principal, field: str, place: FormPlace
) -> tuple[Point | None, FieldErrors]:
    """Return the coordinates of a place that may be described in several ways, and what is wrong with it."""
    at = place.location
    if at is not None and at.lat is not None and at.lon is not None:
        return (at.lat, at.lon), []
    if place.address_id is not None:
        entry = await _entry(kit, caller, place.address_id)
        if entry is None:
            return None, [_no_such_entry(field)]
        found = None if entry["location"] is None else _point(entry["location"])
    elif place.city is None or place.country is None:
        return None, [{"field": field, "message": "give location, or city and country, or address_id"}]
    else:
        found = await asyncio.to_thread(locate, place.country.upper(), place.city, place.region)
    return found, [] if found is not None else [_no_such_city(field)]


async def _entry(kit: StateKit, caller: Principal, address_id: str) -> Document | None:
    try:
        return await AddressStore(kit).get(Owner(caller.tenant_id, caller.user_id), address_id)
    except NotFoundError:
        return None


def _time_errors(pickup_at: datetime, now: datetime) -> FieldErrors:
    if now < pickup_at <= now + AHEAD_MAX:
        return []
    return [{"field": "pickup_at", "message": "must lie ahead, and within a year"}]


def _no_such_entry(field: str) -> dict[str, str]:
    return {"field": f"{field}.address_id", "message": "is not in your address book"}


def _no_such_city(field: str) -> dict[str, str]:
    return {
        "field": f"{field}.location",
        "message": "the city is not in our table, or there are several of that name: give lat and lon",
    }


def _point(location: Mapping[str, float]) -> Point:
    return location["lat"], location["lon"]
