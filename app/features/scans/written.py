"""Amounts and dates as people write them, in English and German. Pure.

`1,234.56`, `1.234,56`, `1 234,56` and `1'234.56` are one amount: the last mark with one or two digits after
it is the decimal one. A mark with three digits after it separates thousands.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Final

YEAR_FIRST: Final = 1950
YEAR_LAST: Final = 2099
_MINOR_DIGITS: Final = 2
"""Of every currency that is known here."""
_AMOUNT_MAX_MINOR: Final = 10**15
_AMBIGUOUS: Final = 0.5

_CURRENCIES: Final = {
    "€": "EUR", "$": "USD", "£": "GBP", "zł": "PLN",
    **{code: code for code in ("EUR", "USD", "GBP", "CHF", "PLN", "CZK", "SEK", "NOK", "DKK", "HUF")},
}  # fmt: skip
_CURRENCY: Final = "|".join(re.escape(sign) for sign in _CURRENCIES)
_NAMED: Final = re.compile(rf"(?<!\w)(?:{_CURRENCY})(?!\w)|[€£$]")
_SPACES: Final = " \u00a0\u2009\u202f"
_APOSTROPHES: Final = "'\u2019"
_MARKS: Final = rf".,{_APOSTROPHES}{_SPACES}"
_NUMBER: Final = rf"\d{{1,3}}(?:[{_MARKS}]\s?\d{{3}})+(?:[.,]\d{{1,2}})?|\d+(?:[.,]\d{{1,2}})?"
_SCALE: Final = r"(?:\s*(?P<scale>million(?:en)?|mio\.?|mn|thousand|tsd\.?|k)(?!\w))?"
_MONEY: Final = re.compile(
    rf"(?:(?P<before>{_CURRENCY})\s*)?(?<![\d.,])(?P<number>{_NUMBER})(?!\d){_SCALE}"
    rf"(?:\s*(?P<after>{_CURRENCY})(?!\s*\d))?",
    re.IGNORECASE,
)
_MONTHS: Final = {
    name: number
    for number, names in enumerate(
        (
            "january jan januar", "february feb februar", "march mar märz maerz marz", "april apr", "may mai",
            "june jun juni", "july jul juli", "august aug", "september sep sept",
            "october oct oktober okt", "november nov", "december dec dezember dez",
        ),
        start=1,
    )
    for name in names.split()
}  # fmt: skip
_MONTH: Final = "|".join(sorted(_MONTHS, key=len, reverse=True))
_DATES: Final = (
    re.compile(r"(?<!\d)(?P<year>\d{4})-(?P<month>\d{2})-(?P<day>\d{2})(?!\d)"),
    re.compile(r"(?<![\d.])(?P<day>\d{1,2})\.\s?(?P<month>\d{1,2})\.\s?(?P<year>\d{4})(?!\d)"),
    re.compile(r"(?<![\d/])(?P<first>\d{1,2})/(?P<second>\d{1,2})/(?P<year>\d{4})(?![\d/])"),
    re.compile(
        rf"(?<!\d)(?P<day>\d{{1,2}})\.?\s+(?P<name>{_MONTH})\.?,?\s+(?P<year>\d{{4}})(?!\d)", re.IGNORECASE
    ),
    re.compile(rf"\b(?P<name>{_MONTH})\.?\s+(?P<day>\d{{1,2}}),?\s+(?P<year>\d{{4}})(?!\d)", re.IGNORECASE),
)


@dataclass(frozen=True, slots=True)
class Amount:
    """A sum of money that was found; `currency` is None where none is written beside it."""

    number: Decimal
    currency: str | None
    text: str

    @property
    def minor(self) -> int | None:
        """It in the smallest unit of its currency; None if that is no sensible amount."""
        exact = self.number.scaleb(_MINOR_DIGITS)
        return int(exact) if exact == exact.to_integral_value() and exact <= _AMOUNT_MAX_MINOR else None


@dataclass(frozen=True, slots=True)
class Day:
    """A date that was found. `strength` is below 1 where day and month may be the other way round."""

    day: date
    strength: float
    text: str


def currencies(text: str) -> Iterator[str]:
    """Yield the currencies that a text names, from left to right."""
    for found in _NAMED.finditer(text):
        yield _CURRENCIES[found[0]]


def amounts(text: str) -> Iterator[Amount]:
    """Yield the numbers in a text that may be sums of money, from left to right."""
    for found in _MONEY.finditer(text):
        number = _number(found["number"])
        if number is None:
            continue
        sign = found["before"] or found["after"]
        currency = None if sign is None else _CURRENCIES.get(sign) or _CURRENCIES.get(sign.upper())
        yield Amount(number * _factor(found["scale"]), currency, found[0].strip())


def days(text: str) -> Iterator[Day]:
    """Yield the dates in a text, from left to right."""
    found = [match for pattern in _DATES for match in pattern.finditer(text)]
    for match in sorted(found, key=lambda each: each.start()):
        day = _day(match)
        if day is not None:
            yield day


def _number(text: str) -> Decimal | None:
    digits = re.sub(rf"[\s{_APOSTROPHES}]", "", text)
    decimals = re.search(r"[.,](\d{1,2})$", digits)
    whole = digits[: decimals.start()] if decimals else digits
    try:
        return Decimal(re.sub(r"[.,]", "", whole) + (f".{decimals[1]}" if decimals else ""))
    except InvalidOperation:
        return None


def _factor(scale: str | None) -> int:
    if scale is None:
        return 1
    return 1_000 if scale[0].lower() in "tk" else 1_000_000


def _day(match: "re.Match[str]") -> Day | None:
    parts = match.groupdict()
    strength = 1.0
    if "first" in parts:
        first, second = int(parts["first"]), int(parts["second"])
        day, month = (second, first) if second > 12 >= first else (first, second)  # noqa: PLR2004  # months
        strength = _AMBIGUOUS if max(first, second) <= 12 and first != second else 1.0  # noqa: PLR2004
    else:
        day = int(parts["day"])
        month = _MONTHS[parts["name"].lower()] if "name" in parts else int(parts["month"])
    year = int(parts["year"])
    if not YEAR_FIRST <= year <= YEAR_LAST:
        return None
    try:
        return Day(date(year, month, day), strength, match[0])
    except ValueError:
        return None
