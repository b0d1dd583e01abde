"""E-mail addresses in the one spelling under which they are stored, compared and counted."""

from typing import Annotated

from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, ValidatedEmail, validate_email
from pydantic import AfterValidator, Field

# Mail is read under these names too, inside companies and in tests. The list is how the library is told.
SPECIAL_USE_DOMAIN_NAMES[:] = [
    name for name in SPECIAL_USE_DOMAIN_NAMES if name not in {"local", "localhost", "test"}
]


def normalise_email(text: str) -> str:
    """Return the one spelling of an address: trimmed, in lower case, its domain in Unicode (IDNA).

    Domains that only exist inside a company (`.local`) are as good as any other.
    Raises ValueError saying what is wrong.
    """
    try:
        address = _validate(text.strip().lower())
    except EmailNotValidError as error:
        raise ValueError(f"is not an e-mail address: {error}") from None
    return address.normalized.lower()


def deliverable_address(email: str) -> str:
    """Return what a mail server is told: the domain in ASCII where the part before the @ allows it."""
    address = _validate(email)
    return address.ascii_email or email


def _validate(text: str) -> ValidatedEmail:
    return validate_email(text, check_deliverability=False, globally_deliverable=False)


Email = Annotated[
    str,
    Field(max_length=254, examples=["ada@example.com"], json_schema_extra={"format": "email"}),
    AfterValidator(normalise_email),
]
"""A field of a request; arrives normalised."""
