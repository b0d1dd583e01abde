"""A document's fields against what the applicant stated. Pure.

What the applicant did not state, or the document does not say, is not compared. Of several values that a
document gives for one thing, one that agrees is enough: an invoice names two companies.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Final

from app.features.scans.fields import Field, Name

REVENUE_TOLERANCE_PERCENT: Final = 5
"""How far the revenue of a document may lie from the one stated: books are rounded, and years differ."""
SURE_ENOUGH: Final = 0.5
"""Fields below it say nothing."""
_ALIKE: Final = 0.9
"""Of two names: above the letters that a photograph takes or adds, below another company's."""
_FORMS: Final = {
    "limited": "ltd", "incorporated": "inc", "corporation": "corp",
    "ag": "ag", "gmbh": "gmbh", "kg": "kg", "ug": "ug", "ohg": "ohg", "se": "se", "co": "co",
    "ltd": "ltd", "plc": "plc", "llc": "llc", "inc": "inc", "corp": "corp",
    "sa": "sa", "sas": "sas", "srl": "srl", "spa": "spa", "bv": "bv", "nv": "nv",
}  # fmt: skip
_AND: Final = frozenset({"and", "und", "et"})
_LOOK_ALIKES: Final = str.maketrans("OIL", "011")


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A field in which document and application differ."""

    field: str
    """As the application calls it."""
    stated: Any
    found: Any
    confidence: float
    page: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of it. Fields of the application that are in neither were not compared."""

    confirmed: tuple[str, ...]
    """Fields of the application that the document says as well."""
    mismatches: tuple[Mismatch, ...]


def compare(fields: Sequence[Field], application: Mapping[str, Any]) -> Comparison:
    """Return in what the document confirms the application, and in what it contradicts it."""
    sure = [field for field in fields if field.confidence >= SURE_ENOUGH]
    found: tuple[tuple[str, list[Field], Callable[[Any, Any], bool]], ...] = (
        ("company_name", _named(sure, "company"), same_company),
        ("registration_number", _named(sure, "registration_number"), same_registration_number),
        (
            "annual_revenue",
            [each for each in _named(sure, "revenue") if each.basis == "annual"],
            same_revenue,
        ),
    )
    confirmed, mismatches = [], []
    for name, candidates, same in found:
        stated = application.get(name)
        if stated is None or not candidates:
            continue
        if any(same(field.value, stated) for field in candidates):
            confirmed.append(name)
        else:
            first = max(candidates, key=lambda field: field.confidence)
            mismatches.append(Mismatch(name, stated, first.value, first.confidence, first.page))
    return Comparison(tuple(confirmed), tuple(mismatches))


def same_company(one: str, other: str) -> bool:
    """Say whether two names are one company's: case, accents, dots and a missing legal form don't matter."""
    (name, forms), (other_name, other_forms) = _company(one), _company(other)
    if forms and other_forms and forms != other_forms:
        return False
    return name == other_name or SequenceMatcher(None, name, other_name).ratio() >= _ALIKE


def same_registration_number(one: str, other: str) -> bool:
    """Say whether two numbers are one, but for punctuation, look-alike letters or a missing prefix."""
    first, second = _number(one), _number(other)
    if first == second:
        return True
    digits, other_digits = re.sub(r"\D", "", first), re.sub(r"\D", "", second)
    return digits == other_digits != "" and (first == digits or second == other_digits)


def same_revenue(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Say whether two revenues agree, within REVENUE_TOLERANCE_PERCENT of the second."""
    if one["currency"] != other["currency"]:
        return False
    apart = abs(one["amount_minor"] - other["amount_minor"])
    return bool(apart * 100 <= other["amount_minor"] * REVENUE_TOLERANCE_PERCENT)


def _named(fields: Iterable[Field], name: Name) -> list[Field]:
    return [field for field in fields if field.name == name]


def _company(name: str) -> tuple[str, frozenset[str]]:
    """Return what is compared of a name: its letters, and its legal form apart."""
    folded = unicodedata.normalize("NFKD", name.casefold().replace("ß", "ss"))
    plain = "".join(letter for letter in folded if not unicodedata.combining(letter))
    for long, short in (("ae", "a"), ("oe", "o"), ("ue", "u")):
        plain = plain.replace(long, short)
    words = re.sub(r"[^\w ]", "", re.sub(r"[&+/-]", " ", plain)).split()
    forms = frozenset(_FORMS[word] for word in words if word in _FORMS)
    return "".join(word for word in words if word not in _FORMS and word not in _AND), forms


def _number(text: str) -> str:
    return re.sub(r"[^0-9A-Za-z]", "", text).upper().translate(_LOOK_ALIKES)
