"""What an address is, and bodies of the addresses routes."""

from typing import Annotated, Any, Final

import phonenumbers
import pycountry
from pydantic import AfterValidator, ConfigDict, Field, ValidationInfo, field_validator

from app.core.moments import Timestamp
from app.http.schemas import ResponseModel, StrictModel

PHONE_MAX_CHARACTERS: Final = 40
_EXAMPLE: Final[dict[str, Any]] = {
    "label": "Warehouse Hamburg",
    "contact_name": "Ines Olsen",
    "phone": "+494042854000",
    "line1": "Am Sandtorkai 50",
    "line2": None,
    "city": "Hamburg",
    "region": None,
    "postal_code": "20457",
    "country": "DE",
    "location": {"lat": 53.5438, "lon": 9.9937},
}

NamedVersion = Annotated[int, Field(strict=True, ge=1)]
Flag = Annotated[bool, Field(strict=True)]
Line = Annotated[str, Field(min_length=1, max_length=200)]
PostalCode = Annotated[str, Field(min_length=1, max_length=20)]
Phone = Annotated[str, Field(min_length=1, max_length=PHONE_MAX_CHARACTERS)]


def _country(code: str) -> str:
    upper = code.upper()
    if pycountry.countries.get(alpha_2=upper) is None:
        raise ValueError("is not a country of ISO 3166-1, such as DE")
    return upper


Country = Annotated[str, Field(pattern=r"^[A-Za-z]{2}$", examples=["DE"]), AfterValidator(_country)]


class Location(StrictModel):
    """A place on the globe, WGS 84."""

    lat: Annotated[float, Field(strict=True, ge=-90, le=90)]
    lon: Annotated[float, Field(strict=True, ge=-180, le=180)]


class AddressFields(StrictModel):
    """Where something is, and whom to ask for there."""

    contact_name: Line
    line1: Line
    line2: Line | None = None
    city: Line
    region: Line | None = None
    """State or province, as its post office writes it: `IL`."""
    postal_code: PostalCode
    country: Country
    """ISO 3166-1 alpha-2."""
    phone: Phone
    """In international form, or as it is dialled in `country`. Kept in E.164: `+494042854000`."""
    location: Location | None = None
    """Unless given, that of the city, if it is a known one of 15,000 people or more."""

    @field_validator("phone")
    @classmethod
    def _e164(cls, value: str, info: ValidationInfo) -> str:
        """Ask only for a possible number: which ranges are in use changes faster than the library."""
        try:
            number = phonenumbers.parse(value, info.data.get("country"))
        except phonenumbers.NumberParseException:
            raise ValueError(
                "is not a phone number; write it in international form, such as +49 40 428540"
            ) from None
        if not phonenumbers.is_possible_number(number):
            raise ValueError("has too many or too few digits for a phone number of that country")
        return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


class NewAddress(AddressFields):
    """An entry of the caller's address book."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**_EXAMPLE, "is_default": False}]})

    label: Annotated[Line, Field(examples=["Warehouse Hamburg"])]
    """What the user calls it."""
    is_default: Flag = False
    """A user has one default at most: setting it here takes it from the one that had it."""


class ReplacedAddress(NewAddress):
    """What the entry shall be."""

    version: NamedVersion | None = None
    """The version this change was made on; another current one is `409 version_conflict`."""


class AddressChanges(StrictModel):
    """What to change about an entry: what is absent stays, `null` removes what may be absent."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"line2": "Gate 4", "is_default": True}]})

    label: Line | None = None
    contact_name: Line | None = None
    line1: Line | None = None
    line2: Line | None = None
    city: Line | None = None
    region: Line | None = None
    postal_code: PostalCode | None = None
    country: Country | None = None
    phone: Phone | None = None
    location: Location | None = None
    """Unless given, looked up again when city, region or country change."""
    is_default: Flag | None = None
    version: NamedVersion | None = None
    """The version this change was made on; another current one is `409 version_conflict`."""

    @property
    def changes(self) -> dict[str, Any]:
        """What was sent, by name, without `version`."""
        return self.model_dump(exclude_unset=True, exclude={"version"})


class AddressOut(ResponseModel):
    """An entry of the address book as of its `version`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "adr_4TFxkQm7JYpZr2sVnW8aBc",
                    **_EXAMPLE,
                    "is_default": True,
                    "version": 1,
                    "created_at": "2026-01-31T10:00:00.000Z",
                    "updated_at": "2026-01-31T10:00:00.000Z",
                }
            ]
        }
    )

    id: str
    label: str
    contact_name: str
    phone: str
    line1: str
    line2: str | None
    city: str
    region: str | None
    postal_code: str
    country: str
    location: Location | None
    """Null if it was not given and the city is not known, or not clear."""
    is_default: bool
    version: int
    created_at: Timestamp
    updated_at: Timestamp
