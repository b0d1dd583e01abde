"""What an application is, and bodies of the applications routes."""

from typing import Annotated, Any, Final, Literal, Self, TypeAlias

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from app.core.moments import Timestamp
from app.core.money import Currency
from app.features.credit.transitions import Status
from app.http.schemas import MONEY_MAX_MINOR, Money, ResponseModel, StrictModel

AMOUNT_MAX_MINOR: Final = 10**12
"""Ten billion in a currency with cents."""
TERMS_MIN_DAYS: Final = 7
TERMS_MAX_DAYS: Final = 180
YEARS_MAX: Final = 500
NOTE_MAX_CHARACTERS: Final = 1000
PURPOSE_MAX_CHARACTERS: Final = 1000
BATCH_MAX: Final = 100

_EXAMPLE: Final[dict[str, Any]] = {
    "company_name": "Marek Maschinenbau GmbH",
    "requested_amount": {"amount_minor": 5000000, "currency": "EUR"},
    "terms_days": 30,
    "registration_number": "HRB 123456",
    "annual_revenue": {"amount_minor": 480000000, "currency": "EUR"},
    "years_trading": 12,
    "purpose": "Freight of the spring season, paid a month later.",
}

NamedVersion = Annotated[int, Field(strict=True, ge=1)]
Line = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
RegistrationNumber = Annotated[str, Field(min_length=2, max_length=50, pattern=r"^[^\x00-\x1f\x7f]+$")]
Purpose = Annotated[str, Field(min_length=1, max_length=PURPOSE_MAX_CHARACTERS)]
Note = Annotated[str, Field(min_length=1, max_length=NOTE_MAX_CHARACTERS)]
"""Goes into the history, which the applicant reads as well."""
ApplicationId = Annotated[str, Field(min_length=1, max_length=64)]


class RequestedAmount(Money):
    """How much credit is asked for, in the tenant's currency."""

    amount_minor: Annotated[int, Field(strict=True, gt=0, le=AMOUNT_MAX_MINOR)]
    currency: Currency


class Revenue(Money):
    """What the company sells in a year, in the tenant's currency."""

    amount_minor: Annotated[int, Field(strict=True, ge=0, le=MONEY_MAX_MINOR)]
    currency: Currency


class NewApplication(StrictModel):
    """An application for trade credit."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    company_name: Line
    requested_amount: RequestedAmount
    """Approved as it is, or not at all."""
    terms_days: Annotated[int, Field(strict=True, ge=TERMS_MIN_DAYS, le=TERMS_MAX_DAYS)]
    """How long after an invoice it is to be paid."""
    registration_number: RegistrationNumber | None = None
    """In the register of companies."""
    annual_revenue: Revenue | None = None
    years_trading: Annotated[int, Field(strict=True, ge=0, le=YEARS_MAX)] | None = None
    purpose: Purpose | None = None


class Decision(StrictModel):
    """What becomes of an application."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"status": "approved", "version": 2, "note": "Sound figures"}]}
    )

    status: Status
    """Where it goes; the status it has already, to add a note."""
    version: NamedVersion
    """The version this is meant for; another current one is `409 version_conflict`."""
    note: Note | None = None
    """Why. Goes into the history, which the applicant reads as well."""


class Assignment(StrictModel):
    """Who looks after an application."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"version": 1}]})

    reviewer_id: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """An underwriter or admin; the caller unless given. Only admins may name others."""
    version: NamedVersion
    """The version this is meant for; another current one is `409 version_conflict`."""


def _unique(ids: list[str]) -> list[str]:
    if len(set(ids)) < len(ids):
        raise ValueError("names an application twice")
    return ids


class BatchUpdate(StrictModel):
    """One decision about several applications."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "application_ids": ["app_4TFxkQm7JYpZr2sVnW8aBc", "app_9KpLmN3qRsTuVwXyZa1BcD"],
                    "status": "in_review",
                    "versions": {"app_4TFxkQm7JYpZr2sVnW8aBc": 1},
                }
            ]
        }
    )

    application_ids: Annotated[
        list[ApplicationId], Field(min_length=1, max_length=BATCH_MAX), AfterValidator(_unique)
    ]
    status: Status
    versions: Annotated[dict[ApplicationId, NamedVersion], Field(max_length=BATCH_MAX)] | None = None
    """The versions this is meant for, by id. One that is named none is written over as it is found."""
    note: Note | None = None
    """Goes into the history of each."""

    @model_validator(mode="after")
    def _versions_are_of_these(self) -> Self:
        others = (self.versions or {}).keys() - set(self.application_ids)
        if others:
            raise ValueError("versions names applications that are not in application_ids")
        return self


BatchOutcome: TypeAlias = Literal["updated", "conflict", "not_found", "invalid_transition"]


class BatchResult(ResponseModel):
    """What became of one application of a batch."""

    id: str
    result: BatchOutcome
    version: int | None
    """After the update, or else the current one; null if it was not found."""


class BatchResults(ResponseModel):
    """What became of each, in the order that they were named in."""

    results: list[BatchResult]


class Reviewer(ResponseModel):
    """Who looks after an application."""

    user_id: str
    name: str


class ApplicationOut(ResponseModel):
    """An application as of its `version`."""

    id: str
    status: Status
    version: int
    """Counts what people changed; scores, documents and payments have their own."""
    company_name: str
    requested_amount: Money
    terms_days: int
    registration_number: str | None
    annual_revenue: Money | None
    years_trading: int | None
    purpose: str | None
    reviewer: Reviewer | None
    user_id: str
    """Who applied."""
    created_at: Timestamp
    updated_at: Timestamp


class ApplicationPage(ResponseModel):
    """A page of applications."""

    items: list[ApplicationOut]
    total: int
    """Of all pages; above a thousand it may be ten seconds old."""
    page: int
    limit: int
    pages: int


class Actor(ResponseModel):
    """Who did something."""

    user_id: str
    name: str
    role: str


class ApplicationEvent(ResponseModel):
    """A step in the life of an application."""

    id: str
    version: int
    """What the application's version became."""
    at: Timestamp
    status: Status
    """What the application became, or remained."""
    actor: Actor
    note: str | None
    reviewer: Reviewer | None
    """Whom it was given to, if that is what happened."""
