"""The fields of a document, found in its rows by rules. Pure.

Each rule has a strength, how often what it finds is what it says: a number behind "Commercial register" is
one, a name in front of "GmbH" at the top of a page mostly is the sender. `confidence` of a field is the
engine's for the row it stands in times the rule's strength: 0.9 for a clear label on a good photograph.

A label and its value stand in one row, or the value stands below. The same value found again is one field,
with the confidence of the better place. The rules know English and German.

They are regular expressions over text that anybody may hand in, hence run where the document is read, in a
process whose time is bounded, and on no more than ROW_MAX_CHARACTERS of a row.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from typing import Any, Final, Literal, Self, TypeAlias

from app.features.scans.pages import Page, Row
from app.features.scans.written import Amount, amounts, currencies, days

Name: TypeAlias = Literal["company", "registration_number", "revenue", "date"]
Basis: TypeAlias = Literal[
    "issuer", "recipient", "annual", "invoice_total", "invoice_date", "due_date", "balance_sheet_date"
]

FIELDS_MAX: Final = 5
"""Of one name."""
ROW_MAX_CHARACTERS: Final = 400
_TEXT_MAX_CHARACTERS: Final = 200
_TOP_ROWS: Final = 6
_BELOW: Final = 0.8
"""Times the strength of a label whose value stands in the row below."""
_NO_CURRENCY: Final = 0.8
"""Times the strength of an amount whose currency stands elsewhere in the document."""

_FORMS: Final = (
    r"GmbH\s?&\s?Co\.?\s?KG(?:aA)?|gGmbH|GmbH|AG\s?&\s?Co\.?\s?KG|KGaA|UG\s?\(haftungsbeschränkt\)|UG|AG|KG|OHG|SE"
    r"|e\.\s?K\.|Ltd\.?|Limited|PLC|plc|LLP|LLC|Inc\.?|Incorporated|Corp\.?|Corporation|S\.A\.R\.L\.|SARL|SAS|S\.A\."
    r"|S\.?r\.?l\.?|S\.?p\.?A\.?|B\.\s?V\.|BV|N\.\s?V\.|NV|Sp\.\s?z\s?o\.\s?o\.|s\.r\.o\.|a\.s\.|ApS|A/S|AB|Oy"
)
_IN_A_NAME: Final = r"[\w&.,'\u2019+\-]"
_COMPANY: Final = re.compile(
    rf"(?P<name>[^\W\d_]{_IN_A_NAME}*(?: {_IN_A_NAME}+){{0,7}}?[ ,]+(?:{_FORMS}))(?!\w)"
)
_ISSUER: Final = re.compile(
    r"\b(?:company(?: name)?|seller|supplier|vendor|from|issued by|firma|firmenname|lieferant|absender)\b"
    r"\s*:?\s*",
    re.IGNORECASE,
)
_RECIPIENT: Final = re.compile(
    r"\b(?:bill(?:ed)? to|invoice to|sold to|ship to|customer|buyer|kunde|rechnung an|empfänger)\b\s*:?\s*",
    re.IGNORECASE,
)
_REGISTERED: Final = re.compile(
    r"(?<!\w)(?P<value>HR[AB][ .:]{0,2}\d[\d ]{1,7}\d(?:\s?[A-Z]{1,2}\b)?)", re.IGNORECASE
)
_REGISTER: Final = re.compile(
    r"\b(?:commercial regist(?:er|ry)|trade regist(?:er|ry)|(?:company )?registration|company|reg\.?"
    r"|handelsregister(?:nummer)?|registernummer|firmenbuch(?:nummer)?|kvk|siren|krs|cvr|crn)"
    r"(?:[ -]*(?:no|number|nr|num|id)\b\.?)?\s*[:#]?\s*(?P<value>[A-Z]{0,3}[ -]?\d[\dA-Z .\-/]{3,14})",
    re.IGNORECASE,
)
_TAX: Final = re.compile(r"\b(?:vat|ust|tax|steuer|umsatzsteuer|iban)\b", re.IGNORECASE)
_ANNUAL: Final = re.compile(
    r"\b(?:annual (?:revenue|turnover|sales)|jahresumsatz|umsatzerlöse?|net sales|total revenue|turnover"
    r"|revenue|umsatz)\b",
    re.IGNORECASE,
)
_ANNUAL_CLEAR: Final = re.compile(r"annual|jahres|erlöse|total revenue", re.IGNORECASE)
_TOTAL_CLEAR: Final = re.compile(
    r"\b(?:total (?:amount )?due|amount due|balance due|grand total|invoice total|total amount|gesamtbetrag"
    r"|rechnungsbetrag|endbetrag|zu zahlen(?:der betrag)?)\b",
    re.IGNORECASE,
)
_TOTAL: Final = re.compile(r"(?<![\w-])(?:total|summe|gesamt)\b", re.IGNORECASE)
_PART_OF_TOTAL: Final = re.compile(r"\b(?:sub ?-?total|net(?:to)?|zwischensumme)\b", re.IGNORECASE)
_DATE_LABELS: Final[tuple[tuple[Basis, "re.Pattern[str]"], ...]] = (
    (
        "due_date",
        re.compile(r"\b(?:due(?: date)?|payable (?:by|until)|fällig(?:keit)?|zahlbar bis)\b", re.IGNORECASE),
    ),
    (
        "balance_sheet_date",
        re.compile(
            r"\b(?:balance sheet date|bilanzstichtag|year ended|as (?:at|of)|stichtag)\b", re.IGNORECASE
        ),
    ),
    (
        "invoice_date",
        re.compile(r"\b(?:invoice date|date of invoice|rechnungsdatum|date|datum)\b", re.IGNORECASE),
    ),
)


@dataclass(frozen=True, slots=True)
class Field:
    """What was found. `value` is text, `YYYY-MM-DD`, or an amount {amount_minor, currency}."""

    name: Name
    value: Any
    basis: Basis | None
    """What it is the company, the amount or the date of; None if the document doesn't say."""
    text: str
    """The row it stands in, as it was read."""
    page: int
    confidence: float

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> Self:
        """Read what `to_wire` made."""
        return cls(**wire)

    def to_wire(self) -> dict[str, Any]:
        """Return it JSON-like."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Place:
    page: int
    row: Row
    index: int
    """Of the row, on its page."""
    below: Row | None

    def field(self, name: Name, value: Any, basis: Basis | None, strength: float) -> Field:
        sure = round(self.row.confidence * strength, 2)
        return Field(name, value, basis, self.row.text[:_TEXT_MAX_CHARACTERS], self.page, sure)


def find_fields(pages: Iterable[Page]) -> tuple[Field, ...]:
    """Return what the pages say, by name, the surest first, FIELDS_MAX of each name at most."""
    places = [place for page in pages for place in _places(page)]
    currency = _usual_currency(places)
    found = [field for place in places for rule in _RULES for field in rule(place)]
    found += [field for place in places for field in _revenues(place, currency)]
    return _best(found)


def _places(page: Page) -> Iterator[_Place]:
    rows = [replace(row, text=row.text[:ROW_MAX_CHARACTERS]) for row in page.rows]
    for index, (row, below) in enumerate(zip_longest(rows, rows[1:])):
        yield _Place(page.number, row, index, below)


def _companies(place: _Place) -> Iterator[Field]:
    text = place.row.text
    recipient, issuer = _RECIPIENT.search(text), _ISSUER.search(text)
    for part in re.split(r"\s{2,}|[|]", text):
        bare = _RECIPIENT.sub("", _ISSUER.sub("", part))
        match = _COMPANY.search(bare)
        if match is None:
            continue
        name = " ".join(match["name"].split())
        if recipient is not None:
            yield place.field("company", name, "recipient", 0.8)
        elif issuer is not None or (place.page == 1 and place.index < _TOP_ROWS):
            yield place.field("company", name, "issuer", 0.95)
        else:
            yield place.field("company", name, None, 0.6)


def _registration_numbers(place: _Place) -> Iterator[Field]:
    text = place.row.text
    clear = _REGISTERED.search(text)
    if clear is not None:
        yield place.field("registration_number", " ".join(clear["value"].split()).upper(), None, 0.95)
        return
    if _TAX.search(text):
        return
    labelled = _REGISTER.search(text)
    if labelled is not None and not any(days(labelled["value"])):
        yield place.field("registration_number", labelled["value"].strip(" .-/").upper(), None, 0.85)


def _dates(place: _Place) -> Iterator[Field]:
    basis = next((basis for basis, label in _DATE_LABELS if label.search(place.row.text)), None)
    for found in days(place.row.text):
        strength = found.strength * (0.95 if basis is not None else 0.6)
        yield place.field("date", found.day.isoformat(), basis, strength)


def _revenues(place: _Place, usual_currency: str | None) -> Iterator[Field]:
    basis, strength = _basis_of_amount(place.row.text)
    if basis is None:
        return
    row, factor = place.row, 1.0
    found = _last_amount(row.text)
    if found is None and place.below is not None and _basis_of_amount(place.below.text)[0] is None:
        row, factor = place.below, _BELOW
        found = _last_amount(row.text)
    if found is None:
        return
    currency = found.currency or usual_currency
    if currency is not None and found.minor is not None:
        factor *= 1.0 if found.currency else _NO_CURRENCY
        value = {"amount_minor": found.minor, "currency": currency}
        yield replace(place, row=row).field("revenue", value, basis, strength * factor)


def _basis_of_amount(text: str) -> tuple[Basis | None, float]:
    if _ANNUAL.search(text) and not _TAX.search(text):
        return "annual", 0.95 if _ANNUAL_CLEAR.search(text) else 0.75
    if _TOTAL_CLEAR.search(text):
        return "invoice_total", 0.95
    if _TOTAL.search(text) and not _PART_OF_TOTAL.search(text):
        return "invoice_total", 0.75
    return None, 0.0


def _last_amount(text: str) -> Amount | None:
    """Return the last amount of a row that is no date or year, preferring one with a currency."""
    without_dates = text
    for day in days(text):
        without_dates = without_dates.replace(day.text, " ")
    found = [each for each in amounts(without_dates) if each.currency or not _is_year(each.text)]
    with_currency = [each for each in found if each.currency]
    return next(reversed(with_currency or found), None)


def _is_year(text: str) -> bool:
    return re.fullmatch(r"(?:19|20)\d\d|\d{1,2}", text) is not None


def _usual_currency(places: Sequence[_Place]) -> str | None:
    seen = Counter(currency for place in places for currency in currencies(place.row.text))
    return seen.most_common(1)[0][0] if seen else None


def _best(found: Iterable[Field]) -> tuple[Field, ...]:
    """Keep of equal ones the surest, and of each name the surest few."""
    surest: dict[tuple[str, str], Field] = {}
    for field in found:
        key = (field.name, repr(field.value))
        if key not in surest or field.confidence > surest[key].confidence:
            surest[key] = field
    ranked = sorted(surest.values(), key=lambda field: (_ORDER[field.name], -field.confidence))
    kept: Counter[str] = Counter()
    fields = []
    for field in ranked:
        kept[field.name] += 1
        if kept[field.name] <= FIELDS_MAX:
            fields.append(field)
    return tuple(fields)


_RULES: Final = (_companies, _registration_numbers, _dates)
_ORDER: Final[dict[Name, int]] = {"company": 0, "registration_number": 1, "revenue": 2, "date": 3}
