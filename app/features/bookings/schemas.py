"""What a booking is, and bodies of the bookings routes."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import (
    AwareDatetime,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from app.core.moments import Timestamp
from app.core.money import Currency
from app.features.addresses.schemas import AddressFields, Line, Location
from app.features.bookings.pricing import Equipment
from app.features.bookings.transitions import Status
from app.http.schemas import MONEY_MAX_MINOR, Money, ResponseModel, StrictModel

Payment: TypeAlias = Literal["prepaid", "credit"]

WEIGHT_MAX_KG: Final = 100_000
PIECES_MAX: Final = 100_000
VOLUME_MAX_M3: Final = 1_000
NOTES_MAX_CHARACTERS: Final = 2000
_ADDRESS_EXAMPLE: Final = {
    "contact_name": "Ines Olsen",
    "phone": "+494042854000",
    "line1": "Am Sandtorkai 50",
    "city": "Hamburg",
    "postal_code": "20457",
    "country": "DE",
}
_SHIPMENT_EXAMPLE: Final[dict[str, Any]] = {
    "pickup": _ADDRESS_EXAMPLE,
    "delivery": {"address_id": "adr_4TFxkQm7JYpZr2sVnW8aBc"},
    "cargo": {"description": "Machine parts", "weight_kg": 8400, "pieces": 12},
    "equipment": "dry_van",
    "pickup_at": "2026-02-03T08:00:00Z",
}

NamedVersion = Annotated[int, Field(strict=True, ge=1)]
Flag = Annotated[bool, Field(strict=True)]
Reference = Annotated[str, Field(min_length=1, max_length=100, examples=["PO-4711"])]
Notes = Annotated[str, Field(max_length=NOTES_MAX_CHARACTERS)]


def _written(value: Any) -> Any:
    if isinstance(value, str | datetime):
        return value
    raise ValueError("write a date and time with its offset, such as 2026-01-31T10:00:00Z")


Moment = Annotated[AwareDatetime, BeforeValidator(_written)]
"""A date and time with its offset from UTC, as text."""


class BookingAddress(AddressFields):
    """An address that is given with the booking itself."""

    label: Line | None = None
    is_default: Flag = False
    """Taken, so that an entry of the address book may be sent as it is; it means nothing here."""


class AddressReference(StrictModel):
    """An entry of the caller's address book. The booking copies it: what becomes of the entry later doesn't
    matter to it.
    """

    address_id: Annotated[str, Field(max_length=64)]


def _one_or_the_other(value: Any, _: ValidatorFunctionWrapHandler) -> BookingAddress | AddressReference:
    """Take it for the one that it looks like, so that errors name its fields and not those of both."""
    if isinstance(value, BookingAddress | AddressReference):
        return value
    if isinstance(value, dict) and "address_id" in value:
        return AddressReference.model_validate(value)
    return BookingAddress.model_validate(value)


Place = Annotated[BookingAddress | AddressReference, WrapValidator(_one_or_the_other)]


class Cargo(StrictModel):
    """What is to be carried."""

    description: Annotated[str, Field(min_length=1, max_length=500)]
    weight_kg: Annotated[float, Field(strict=True, gt=0, le=WEIGHT_MAX_KG)]
    pieces: Annotated[int, Field(strict=True, ge=1, le=PIECES_MAX)]
    volume_m3: Annotated[float, Field(strict=True, gt=0, le=VOLUME_MAX_M3)] | None = None
    hazardous: Flag = False
    """Dangerous goods in the sense of ADR."""

    @property
    def exact_weight_kg(self) -> Decimal:
        """The weight as it was written, for reckoning."""
        return Decimal(str(self.weight_kg))


class DeclaredValue(Money):
    """What the cargo is worth, for insurance."""

    amount_minor: Annotated[int, Field(strict=True, gt=0, le=MONEY_MAX_MINOR)]
    currency: Currency


class NewBooking(StrictModel):
    """A shipment to be booked."""

    model_config = ConfigDict(json_schema_extra={"examples": [_SHIPMENT_EXAMPLE]})

    pickup: Place
    delivery: Place
    cargo: Cargo
    equipment: Equipment
    pickup_at: Moment
    """Ahead, and within a year."""
    payment: Payment = "prepaid"
    reference: Reference | None = None
    """The shipper's own name for it: bookings can be found by it."""
    notes: Notes | None = None
    declared_value: DeclaredValue | None = None


class Cancellation(StrictModel):
    """Why a booking is called off."""

    note: Notes | None = None
    version: NamedVersion | None = None
    """The version this is meant for; another current one is `409 version_conflict`."""


class StatusChange(StrictModel):
    """Where a booking goes next."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "assigned", "note": "Truck 7"}]})

    status: Status
    note: Notes | None = None
    version: NamedVersion | None = None
    """The version this is meant for; another current one is `409 version_conflict`."""


class PriceLine(ResponseModel):
    """A part of a price."""

    code: str
    """Stable: base, linehaul, weight, hazard, lead_time, minimum."""
    description: str
    amount: Money


class QuoteOut(ResponseModel):
    """What a shipment would cost if it were booked now."""

    price: Money
    """The sum of the lines."""
    price_lines: list[PriceLine]
    distance_km: int
    """Great circle."""


class PlaceOut(ResponseModel):
    """Where to, as it was when the booking was made."""

    address_id: str | None
    """The entry of the address book it was copied from."""
    label: str | None
    contact_name: str
    phone: str
    line1: str
    line2: str | None
    city: str
    region: str | None
    postal_code: str
    country: str
    location: Location


class CargoOut(ResponseModel):
    """What is carried."""

    description: str
    weight_kg: float
    pieces: int
    volume_m3: float | None
    hazardous: bool


class BookingOut(QuoteOut):
    """A booking as of its `version`."""

    id: str
    number: str
    """Unique in the tenant; its last letter checks the others."""
    status: Status
    price: Money
    """What was agreed on. It never changes."""
    pickup: PlaceOut
    delivery: PlaceOut
    cargo: CargoOut
    equipment: Equipment
    pickup_at: Timestamp
    payment: Payment
    reference: str | None
    notes: str | None
    declared_value: Money | None
    draft_id: str | None
    """The draft it was made from."""
    user_id: str
    """Whose booking it is."""
    version: int
    created_at: Timestamp
    updated_at: Timestamp


class Actor(ResponseModel):
    """Who did something."""

    user_id: str
    name: str
    role: str


class BookingEvent(ResponseModel):
    """A step in the life of a booking."""

    id: str
    status: Status
    """What the booking became."""
    at: Timestamp
    actor: Actor
    note: str | None
