"""Models that every feature's requests and responses share."""

from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Item = TypeVar("Item")

MONEY_MAX_MINOR = 10**15
"""Ten trillion in a currency with cents: far from any real price, and from 64 bits when many are summed."""


class StrictModel(BaseModel):
    """A request body: unknown fields are refused, text is trimmed, floats are finite.

    Types are converted only where JSON has no better way to say it (`"2026-01-31T10:00:00Z"` is a time); a
    number is never read out of a string, nor a flag out of a number.
    """

    model_config = ConfigDict(
        extra="forbid", str_strip_whitespace=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class ResponseModel(BaseModel):
    """A response body. It documents an answer; what we stored ourselves need not be validated again."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Money(StrictModel):
    """An amount in the currency's smallest unit. Never a float."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"amount_minor": 129900, "currency": "EUR"}]})

    amount_minor: Annotated[int, Field(strict=True, ge=-MONEY_MAX_MINOR, le=MONEY_MAX_MINOR)]
    """How many of the smallest unit, such as cents."""
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    """ISO 4217, such as EUR."""


class Page(ResponseModel, Generic[Item]):
    """A page of a list. `next_cursor` is what to send as `cursor` for the next one; null on the last."""

    items: list[Item]
    next_cursor: str | None


class FieldError(ResponseModel):
    """One field that broke a rule."""

    field: str
    """Where: `cargo.weight_kg`, `items.3`, or `body` for the whole."""
    message: str
    """What is expected there."""


class Problem(ResponseModel):
    """RFC 9457. Every error of this API has this shape; rely on `code`."""

    model_config = ConfigDict(
        use_attribute_docstrings=True,
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "type": "/problems/validation_failed",
                    "title": "Validation failed",
                    "status": 422,
                    "detail": "The request breaks a rule.",
                    "code": "validation_failed",
                    "request_id": "8f14e45fceea167a5a36dedd4bea2543",
                    "errors": [{"field": "cargo.weight_kg", "message": "Input should be greater than 0"}],
                }
            ]
        },
    )

    type: str
    """A page that describes the code, relative to this server."""
    title: str
    status: int
    detail: str
    code: str
    """Stable; what programs should look at."""
    request_id: str
    """The same as in `X-Request-ID`; quote it when asking for help."""
    errors: list[FieldError] | None = None


JsonObject = dict[str, Any]
