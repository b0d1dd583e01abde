"""Bodies of the users and tenant routes."""

from functools import cache
from importlib import resources
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints, field_validator

from app.core.emails import Email
from app.core.moments import Timestamp
from app.core.money import Currency
from app.core.passwords import PASSWORD_MAX_CHARACTERS, PASSWORD_MIN_CHARACTERS
from app.core.settings import Tier
from app.http.schemas import ResponseModel, StrictModel
from app.state.principals import Role

Name = Annotated[str, Field(min_length=1, max_length=200)]
NamedVersion = Annotated[int, Field(strict=True, ge=1)]


@cache
def time_zones() -> frozenset[str]:
    """Return the names of the IANA database that the tzdata package ships, the same on every machine."""
    return frozenset(resources.files("tzdata").joinpath("zones").read_text().split())


def _time_zone(name: str) -> str:
    if name not in time_zones():
        raise ValueError("is not a time zone of the IANA database, such as Europe/Berlin")
    return name


TimeZone = Annotated[str, Field(max_length=64, examples=["Europe/Berlin"]), AfterValidator(_time_zone)]


class Changes(StrictModel):
    """A PATCH body: what is absent stays, and nothing can be set to null."""

    version: NamedVersion | None = None
    """The version this change was made on; another current one is `409 version_conflict`."""

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_null(cls, value: Any) -> Any:
        if value is None:
            raise ValueError("must not be null; leave the field out to keep what is there")
        return value

    @property
    def changes(self) -> dict[str, Any]:
        """What was sent, by name, without `version`."""
        return self.model_dump(exclude_unset=True, exclude={"version"})


class NewUser(StrictModel):
    """A user of the caller's tenant."""

    email: Email
    name: Annotated[Name, Field(examples=["Grace Hopper"])]
    role: Role
    password: Annotated[
        str,
        StringConstraints(
            strip_whitespace=False, min_length=PASSWORD_MIN_CHARACTERS, max_length=PASSWORD_MAX_CHARACTERS
        ),
    ]


class UserChanges(Changes):
    """What to change about a user."""

    name: Name | None = None
    role: Role | None = None
    active: Annotated[bool, Field(strict=True)] | None = None
    """`false` ends all logins and API keys of the user at once."""
    tier: Tier | None = None


class UserOut(ResponseModel):
    """A user of the tenant."""

    id: str
    tenant_id: str
    email: str
    name: str
    role: Role
    tier: Tier
    active: bool
    version: int
    created_at: Timestamp
    updated_at: Timestamp


class TenantChanges(Changes):
    """What to change about the tenant."""

    name: Name | None = None
    currency: Currency | None = None
    time_zone: TimeZone | None = None


class TenantOut(ResponseModel):
    """The operator that the caller works for."""

    id: str
    name: str
    currency: str
    time_zone: str
    version: int
    created_at: Timestamp
    updated_at: Timestamp
