"""What carts and preferences look like: the members that clients share have a type, others are the client's.

Drafts have their form (`bookings`), and the other types hold whatever an application likes. What is checked
is the data as it would be afterwards, so that no patch leads out of the shape.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.http.validation import validated
from app.state.session_documents import SessionType

ITEMS_MAX: Final = 100
QUANTITY_MAX: Final = 1_000_000

Text = Annotated[str, Field(max_length=200)]
Language = Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*$", max_length=35)]


class _OpenModel(BaseModel):
    """Members that are not named here pass."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)


class CartItem(_OpenModel):
    """Something to be booked later."""

    sku: Text | None = None
    """What it is, in the client's catalogue."""
    quantity: Annotated[int, Field(ge=1, le=QUANTITY_MAX)] | None = None
    equipment: Text | None = None
    note: Text | None = None


class Cart(_OpenModel):
    """What is in a cart."""

    items: Annotated[list[CartItem], Field(max_length=ITEMS_MAX)] | None = None
    note: Text | None = None


class Preferences(_OpenModel):
    """How a user likes things to be."""

    theme: Annotated[str, Field(max_length=50)] | None = None
    language: Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*$", max_length=35)] | None = (
        None
    )
    """BCP 47, such as `en` or `pt-BR`."""
    time_zone: Annotated[str, Field(max_length=64)] | None = None
    units: Literal["metric", "imperial"] | None = None
    notifications: bool | dict[str, Any] | None = None


class _CartSession(BaseModel):
    data: Cart


class _PreferencesSession(BaseModel):
    data: Preferences


_SHAPES: Final[Mapping[SessionType, type[BaseModel]]] = {
    "cart": _CartSession,
    "preferences": _PreferencesSession,
}


def check_shape(session_type: SessionType, data: Mapping[str, Any]) -> None:
    """Raise ValidationFailedError, naming members such as `data.items.3.quantity`, if they don't fit."""
    shape = _SHAPES.get(session_type)
    if shape is not None:
        validated(shape, {"data": data})
