"""The booking form while it is being filled in: every field optional, each of the right type.

Drafts hold it, and quotes take what a price needs of it. Whether text is long enough, a country exists or a
phone number could be one is only asked when the form is submitted: people type from left to right.
"""

from typing import Annotated, Any, Final, Self

from pydantic import ConfigDict, Field, model_validator

from app.core.moments import Timestamp
from app.features.addresses.schemas import Flag
from app.features.bookings.pricing import Equipment
from app.features.bookings.schemas import (
    PIECES_MAX,
    VOLUME_MAX_M3,
    WEIGHT_MAX_KG,
    Moment,
    NamedVersion,
    Notes,
    Payment,
)
from app.http.schemas import MONEY_MAX_MINOR, JsonObject, ResponseModel, StrictModel

Text = Annotated[str, Field(max_length=500)]
ClientId = Annotated[str, Field(min_length=1, max_length=64, examples=["tab-1f0c"])]
Sequence = Annotated[int, Field(strict=True, ge=0, le=2**53 - 1)]
Step = Annotated[int, Field(strict=True, ge=0, le=100)]

_EXAMPLE_FORM: Final[dict[str, Any]] = {
    "pickup": {"city": "Hamburg", "country": "DE"},
    "cargo": {"description": "Machine parts", "weight_kg": 8400},
}


class _FormModel(StrictModel):
    """A part of the form: kept to the letter, the space at the end of what is being typed included."""

    model_config = ConfigDict(str_strip_whitespace=False)


class FormLocation(_FormModel):
    """Coordinates, or one of them."""

    lat: Annotated[float, Field(strict=True, ge=-90, le=90)] | None = None
    lon: Annotated[float, Field(strict=True, ge=-180, le=180)] | None = None


class FormPlace(_FormModel):
    """As much of an address as there is, or an entry of the address book, which then counts alone."""

    address_id: Text | None = None
    label: Text | None = None
    contact_name: Text | None = None
    phone: Text | None = None
    line1: Text | None = None
    line2: Text | None = None
    city: Text | None = None
    region: Text | None = None
    postal_code: Text | None = None
    country: Text | None = None
    location: FormLocation | None = None
    is_default: Flag | None = None


class FormCargo(_FormModel):
    """As much as is known of the cargo."""

    description: Text | None = None
    weight_kg: Annotated[float, Field(strict=True, ge=0, le=WEIGHT_MAX_KG)] | None = None
    pieces: Annotated[int, Field(strict=True, ge=0, le=PIECES_MAX)] | None = None
    volume_m3: Annotated[float, Field(strict=True, ge=0, le=VOLUME_MAX_M3)] | None = None
    hazardous: Flag | None = None


class FormMoney(_FormModel):
    """As much as is known of an amount."""

    amount_minor: Annotated[int, Field(strict=True, ge=0, le=MONEY_MAX_MINOR)] | None = None
    currency: Text | None = None


class BookingForm(_FormModel):
    """A part of the booking form. In a merge patch `null` removes a field."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE_FORM]})

    pickup: FormPlace | None = None
    delivery: FormPlace | None = None
    cargo: FormCargo | None = None
    equipment: Equipment | None = None
    pickup_at: Moment | None = None
    payment: Payment | None = None
    reference: Text | None = None
    notes: Notes | None = None
    declared_value: FormMoney | None = None


class QuoteCargo(FormCargo):
    """What is to be carried, for a price."""

    weight_kg: Annotated[float, Field(strict=True, gt=0, le=WEIGHT_MAX_KG)]


class NewQuote(BookingForm):
    """A shipment to be priced. The whole of a booking may be sent: a price just doesn't need all of it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "pickup": {"city": "Hamburg", "country": "DE"},
                    "delivery": {"city": "Rotterdam", "country": "NL"},
                    "cargo": {"weight_kg": 8400},
                    "equipment": "dry_van",
                }
            ]
        }
    )

    pickup: FormPlace
    """Coordinates, a city with its country, or an address book entry."""
    delivery: FormPlace
    cargo: QuoteCargo
    equipment: Equipment
    pickup_at: Moment | None = None
    """Ahead, and within a year. Without it the price is that of a pick-up between three days and two weeks
    from now.
    """


class _Save(StrictModel):
    """What every save carries."""

    data: BookingForm = BookingForm()
    """A merge patch (RFC 7396): members replace, objects merge, `null` removes. To be safe against saves that
    arrive late or twice, it holds every field changed since the last save that was acknowledged.
    """
    step: Step | None = None
    """How far the user has got; clients give it its meaning."""
    client_id: ClientId | None = None
    """Which tab or device this is from."""
    seq: Sequence | None = None
    """Grows with each save of this `client_id`: what is not above the highest seen changes nothing."""

    @model_validator(mode="after")
    def _together(self) -> Self:
        if (self.client_id is None) != (self.seq is None):
            raise ValueError("send client_id and seq together, or neither")
        return self

    @property
    def patch(self) -> dict[str, Any]:
        """The merge patch, as it was sent."""
        return self.data.model_dump(mode="json", exclude_unset=True)


class NewDraft(_Save):
    """The beginning of a draft."""


class DraftSave(_Save):
    """A save of a draft."""

    version: NamedVersion | None = None
    """The version this change was made on; another current one is `409 version_conflict`."""


class Submission(StrictModel):
    """What a submit may say."""

    version: NamedVersion | None = None
    """The version the user has seen; another current one is `409 version_conflict`."""


class FieldProblem(ResponseModel):
    """A field that would not be accepted as it is."""

    field: str
    message: str


class DraftOut(ResponseModel):
    """A draft as of its `version`."""

    id: str
    data: JsonObject
    step: int | None
    version: int
    saved_at: Timestamp
    expires_at: Timestamp
    applied: bool
    """Whether this save is in it now: false for one that came late or twice and changed nothing."""
    submitted: bool
    """Whether it is just becoming a booking, so that it can't be changed any more."""
    missing: list[str]
    """What must be filled in before it can be submitted, such as `cargo.weight_kg`."""
    invalid: list[FieldProblem]
    """What is filled in and would be refused."""
