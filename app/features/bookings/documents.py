"""A booking as it is stored and as it is shown.

Document in `bookings`: {_id bkg_…, tenant_id, user_id, number, status, version, pickup, delivery, cargo,
equipment, pickup_at, payment, reference, reference_key, notes, declared_value, price {currency,
amount_minor, distance_km, lines}, draft_id, events [{id, status, at, actor {user_id, name, role}, note}],
outbox (`state.jobs`), idempotency (`state.idempotency`), created_at, updated_at}. `draft_id` and
`reference_key` are only there if there is one, for the sake of their indexes. After it was made only
`status`, `events`, `version`, `updated_at` and what others keep in it change, so that what was answered first
can be answered again (`as_made`).
"""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from app.core.ids import new_id
from app.core.moments import timestamp
from app.features.bookings.pricing import Price
from app.features.bookings.schemas import NewBooking
from app.features.bookings.transitions import Status
from app.state.mongo import Document
from app.state.principals import Principal

_PLACE = (
    "address_id", "label", "contact_name", "phone", "line1", "line2", "city", "region", "postal_code",
    "country", "location",
)  # fmt: skip
_SHOWN = ("cargo", "equipment", "payment", "reference", "notes", "declared_value", "user_id", "version")


def new_booking(
    *,
    caller: Principal,
    booking: NewBooking,
    pickup: Mapping[str, Any],
    delivery: Mapping[str, Any],
    price: Price,
    number: str,
    now: datetime,
) -> Document:
    """Return the document of a booking that is made now, with the first event of its life."""
    document: Document = {
        "_id": new_id("bkg"),
        "tenant_id": caller.tenant_id,
        "user_id": caller.user_id,
        "number": number,
        "status": "booked",
        "version": 1,
        "pickup": {name: pickup.get(name) for name in _PLACE},
        "delivery": {name: delivery.get(name) for name in _PLACE},
        "cargo": booking.cargo.model_dump(),
        "equipment": booking.equipment,
        "pickup_at": booking.pickup_at,
        "payment": booking.payment,
        "reference": booking.reference,
        "notes": booking.notes,
        "declared_value": booking.declared_value.model_dump() if booking.declared_value else None,
        "price": stored_price(price),
        "events": [new_event("booked", caller, now, note=None)],
        "created_at": now,
        "updated_at": now,
    }
    if booking.reference is not None:
        document["reference_key"] = reference_key(booking.reference)
    return document


def new_event(status: Status, caller: Principal, now: datetime, *, note: str | None) -> Document:
    """Return the event that a booking became `status`."""
    return {
        "id": new_id("evt"),
        "status": status,
        "at": now,
        "actor": {"user_id": caller.user_id, "name": caller.name, "role": caller.role},
        "note": note,
    }


def reference_key(reference: str) -> str:
    """Return what references are compared by: case and outer spaces don't matter."""
    return reference.strip().casefold()


def shown(document: Document) -> dict[str, Any]:
    """Return a booking as it is answered."""
    return {
        "id": document["_id"],
        "number": document["number"],
        "status": document["status"],
        **shown_price(document["price"]),
        "pickup": document["pickup"],
        "delivery": document["delivery"],
        **{name: document[name] for name in _SHOWN},
        "pickup_at": timestamp(document["pickup_at"]),
        "draft_id": document.get("draft_id"),
        "created_at": timestamp(document["created_at"]),
        "updated_at": timestamp(document["updated_at"]),
    }


def as_made(document: Document) -> Document:
    """Return the booking as it was when it was made, whatever has become of it."""
    beginning = {"status": "booked", "version": 1, "updated_at": document["created_at"]}
    return {**document, **beginning, "events": document["events"][:1]}


def stored_price(price: Price) -> Document:
    """Return a price as it is stored."""
    fields = asdict(price)
    return {**fields, "lines": list(fields["lines"]), "amount_minor": price.amount_minor}


def shown_price(price: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored price as it is answered."""
    currency = price["currency"]
    return {
        "price": {"amount_minor": price["amount_minor"], "currency": currency},
        "price_lines": [
            {
                "code": line["code"],
                "description": line["description"],
                "amount": {"amount_minor": line["amount_minor"], "currency": currency},
            }
            for line in price["lines"]
        ],
        "distance_km": price["distance_km"],
    }


def shown_event(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event as it is answered."""
    return {**event, "at": timestamp(event["at"])}
