"""Bookings and prices as tools: what the routes show, for the same people."""

import asyncio
from typing import Annotated, Final

import orjson
from pydantic import Field

from app.core.errors import ForbiddenError, NotFoundError
from app.core.ids import is_id
from app.core.moments import timestamp
from app.features.addresses.places import locate_anywhere
from app.features.bookings import service
from app.features.bookings.documents import shown_event, shown_price
from app.features.bookings.form_schemas import FormLocation, FormPlace, NewQuote, QuoteCargo
from app.features.bookings.numbers import read_number
from app.features.bookings.pricing import Equipment
from app.features.bookings.schemas import WEIGHT_MAX_KG, Moment
from app.features.bookings.store import BookingStore, Filters
from app.features.bookings.transitions import Status
from app.http.schemas import JsonObject, StrictModel
from app.http.tools import Tool
from app.http.validation import refused
from app.state.kit import StateKit
from app.state.mongo import Document
from app.state.principals import Principal

LIMIT_MAX: Final = 20


class ListBookings(StrictModel):
    """Which bookings."""

    status: Status | None = None
    """Only those that are this."""
    limit: Annotated[int, Field(ge=1, le=LIMIT_MAX)] = 10


class GetBooking(StrictModel):
    """Which booking."""

    booking: Annotated[str, Field(min_length=1, max_length=64)]
    """Its number, such as BK-7K3M-9QTX, or its id."""


class Quote(StrictModel):
    """A shipment to be priced."""

    origin: Annotated[str, Field(min_length=1, max_length=100)]
    """The city where it is picked up."""
    origin_country: Annotated[str, Field(pattern=r"^[A-Za-z]{2}$")] | None = None
    """ISO 3166-1 alpha-2, such as DE; needed if there are several cities of that name."""
    destination: Annotated[str, Field(min_length=1, max_length=100)]
    """The city where it is delivered."""
    destination_country: Annotated[str, Field(pattern=r"^[A-Za-z]{2}$")] | None = None
    weight_kg: Annotated[float, Field(gt=0, le=WEIGHT_MAX_KG)]
    equipment: Equipment = "dry_van"
    hazardous: bool = False
    pickup_at: Moment | None = None
    """Ahead, and within a year, with its offset from UTC: 2026-12-01T08:00:00Z."""


async def _list_bookings(kit: StateKit, caller: Principal, wanted: ListBookings) -> JsonObject:
    filters = Filters(status=wanted.status)
    rows = await BookingStore(kit).page(caller, filters, before=None, limit=wanted.limit + 1)
    return {"bookings": [_summary(row) for row in rows[: wanted.limit]], "more": len(rows) > wanted.limit}


async def _get_booking(kit: StateKit, caller: Principal, wanted: GetBooking) -> JsonObject:
    store = BookingStore(kit)
    if is_id(wanted.booking, "bkg"):
        row = await store.get(caller, wanted.booking)
    else:
        number = read_number(wanted.booking)
        found = (
            [] if number is None else await store.page(caller, Filters(number=number), before=None, limit=1)
        )
        if not found:
            raise NotFoundError
        row = found[0]
    return {
        **_summary(row),
        "cargo": row["cargo"],
        "reference": row["reference"],
        "events": [shown_event(event) for event in row["events"]],
    }


async def _quote(kit: StateKit, caller: Principal, wanted: Quote) -> JsonObject:
    if caller.role not in service.BOOKERS:
        raise ForbiddenError(f"Prices are for {', '.join(service.BOOKERS)}; you are {caller.role}.")
    answer = await service.quote(
        kit,
        caller,
        NewQuote(
            pickup=await _place("origin", wanted.origin, wanted.origin_country),
            delivery=await _place("destination", wanted.destination, wanted.destination_country),
            cargo=QuoteCargo(weight_kg=wanted.weight_kg, hazardous=wanted.hazardous),
            equipment=wanted.equipment,
            pickup_at=wanted.pickup_at,
        ),
    )
    return {**orjson.loads(answer.body), "note": "A price of this moment; nothing was booked."}


async def _place(field: str, city: str, country: str | None) -> FormPlace:
    if country is not None:
        return FormPlace(city=city, country=country.upper())
    found = await asyncio.to_thread(locate_anywhere, city)
    if found is None:
        message = f"{city[:40]!r} is not a city we know, or there are several: name its country as well"
        raise refused([{"field": field, "message": message}])
    return FormPlace(city=city, country=found[0], location=FormLocation(lat=found[1], lon=found[2]))


def _summary(row: Document) -> JsonObject:
    return {
        "id": row["_id"],
        "number": row["number"],
        "status": row["status"],
        "from": f"{row['pickup']['city']}, {row['pickup']['country']}",
        "to": f"{row['delivery']['city']}, {row['delivery']['country']}",
        "pickup_at": timestamp(row["pickup_at"]),
        "equipment": row["equipment"],
        "price": shown_price(row["price"])["price"],
        "updated_at": timestamp(row["updated_at"]),
    }


TOOLS: Final = (
    Tool(
        "list_bookings",
        "List bookings, newest first: the user's own, or for dispatchers and admins the whole company's.",
        ListBookings,
        _list_bookings,
    ),
    Tool(
        "get_booking",
        "Show one booking by its number or id: status, route, price and everything that happened to it.",
        GetBooking,
        _get_booking,
    ),
    Tool(
        "quote",
        "Price a shipment between two cities, line by line. Books nothing.",
        Quote,
        _quote,
    ),
)
