"""Currencies of ISO 4217, and how small their smallest unit is."""

from decimal import Decimal
from typing import Annotated, Final

import pycountry
from pydantic import AfterValidator, Field

_WITHOUT_MINOR_UNIT: Final = frozenset(
    (
        "BIF",
        "CLP",
        "DJF",
        "GNF",
        "ISK",
        "JPY",
        "KMF",
        "KRW",
        "PYG",
        "RWF",
        "UGX",
        "UYI",
        "VND",
        "VUV",
        "XAF",
        "XOF",
        "XPF",
    )
)
_IN_THOUSANDTHS: Final = frozenset(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"))


def minor_digits(currency: str) -> int:
    """Return how many decimals an amount has, so that 12.50 EUR is 1250 of the smallest unit: 2, 0 or 3."""
    if currency in _WITHOUT_MINOR_UNIT:
        return 0
    return 3 if currency in _IN_THOUSANDTHS else 2


def _known(code: str) -> str:
    if pycountry.currencies.get(alpha_3=code) is None:
        raise ValueError("is not a currency of ISO 4217, such as EUR")
    return code


Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$", examples=["EUR"]), AfterValidator(_known)]
"""A currency's code, in a request."""


def written(amount_minor: int, currency: str) -> str:
    """Return an amount as people read it, such as 1,234.50 EUR."""
    digits = minor_digits(currency)
    return f"{Decimal(amount_minor).scaleb(-digits):,.{digits}f} {currency}"
