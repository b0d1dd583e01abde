"""What the built-in assistant makes of a question: which tool, with which arguments. Pure."""

import re
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, Final

import pycountry

READ_CHARACTERS: Final = 400
"""Patterns for cities try many splits: 2 s for 8,000 hostile characters (measured), under 1 ms for these."""
_NUMBER: Final = re.compile(r"\bBK-?[0-9A-Z]{4}-?[0-9A-Z]{4}\b|\bbkg_\w{22}\b", re.IGNORECASE)
_HELP: Final = re.compile(r"\b(help|what can you do|who are you|hello|hi)\b", re.IGNORECASE)
_ADDRESSES: Final = re.compile(r"\baddress(es)?( book)?\b", re.IGNORECASE)
_CREDIT: Final = re.compile(r"\b(credit|owe)\b", re.IGNORECASE)
_BOOKINGS: Final = re.compile(r"\b(bookings?|shipments?|loads?|orders?|freight)\b", re.IGNORECASE)
_APPLICATION_ID: Final = re.compile(r"\bapp_\w{22}\b")
_APPLICATIONS: Final = re.compile(r"\bapplications?\b", re.IGNORECASE)
_APPLICATION_STATUS: Final = re.compile(
    r"\b(pending|in[ _]review|approved|rejected|disbursing|disbursed)\b", re.IGNORECASE
)
_STATUS: Final = re.compile(
    r"\b(booked|assigned|picked[ _]up|in[ _]transit|delivered|closed|cancelled|canceled)\b", re.IGNORECASE
)
_PRICE: Final = re.compile(r"\b(quote|price|cost|costs|how much|rate)\b", re.IGNORECASE)
_WEIGHT: Final = re.compile(r"(\d[\d., ]*)\s*(kg|kilos?|kilograms?|t|tons?|tonnes?)\b", re.IGNORECASE)
ASSUMED_WEIGHT_KG: Final = 10_000
"""What a price is for where no weight is named."""
_DATE: Final = re.compile(r"\b(\d{4}-\d{2}-\d{2})\b")
_WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_WEEKDAY: Final = re.compile(rf"\b({'|'.join(_WEEKDAYS)})\b", re.IGNORECASE)
_TOMORROW: Final = re.compile(r"\btomorrow\b", re.IGNORECASE)
_LATER: Final = re.compile(r"\bin (\d{1,3}) (day|week)s?\b", re.IGNORECASE)
_EQUIPMENT: Final = re.compile(r"\b(dry[ _-]?van|reefer|flatbed|container)\b", re.IGNORECASE)
_CITY: Final = r"[^\W\d_](?:[^\W\d_]|[ .'\u2019-]){0,40}"
_COUNTRY: Final = r"(?:\s*(?:,\s*|\()(?P<{name}>[^\W\d_][^\W\d_ ]*)\)?)?"
_END: Final = (
    r"(?=\s*(?:[,;?!]|\.(?:\s|$)|$|\b(?:on|with|for|by|next|in|weighing|cost|costs|as|please|at|of|this|today|"
    rf"tomorrow|{'|'.join(_WEEKDAYS)})\b|\d))"
)
_ROUTE: Final = re.compile(
    rf"\bfrom\s+(?P<origin>{_CITY}?){_COUNTRY.format(name='origin_country')}"
    rf"\s+to\s+(?P<destination>{_CITY}?){_COUNTRY.format(name='destination_country')}{_END}",
    re.IGNORECASE,
)
_DASHED: Final = re.compile(
    r"\b(?P<origin>[^\W\d_]{3,})\s*(?:\u2013|\u2014|->|\u2192|-)\s*(?P<destination>[^\W\d_]{3,})\b"
)
_NAME: Final = (
    r"(?!(?:What|How|Price|Cost|Quote|Rate|Please)\b)[^\W\d_a-z][^\W\d_]+(?:[ -][^\W\d_a-z][^\W\d_]+){0,3}"
)
_PLAIN: Final = re.compile(rf"\b(?P<origin>{_NAME})\s+to\s+(?P<destination>{_NAME})")
"""Without "from" only names that are written like names are taken for cities."""


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for: a tool with arguments, or a topic (help, unknown) without."""

    topic: str
    tool: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    assumes_weight: bool = False
    """The question named none."""


def understand(question: str, today: date) -> Request:
    """Return what a question asks for, as far as plain parsing of its beginning goes."""
    question = question[:READ_CHARACTERS]
    number = _NUMBER.search(question)
    if number is not None:
        return Request("booking", "get_booking", {"booking": number[0]})
    if _APPLICATIONS.search(question) or _APPLICATION_ID.search(question):
        return _application(question)
    asks_price = _PRICE.search(question)
    route = _ROUTE.search(question)
    if route is None and asks_price:
        route = _DASHED.search(question) or _PLAIN.search(question)
    if route is not None and (asks_price or _WEIGHT.search(question)):
        return _quote(question, route, today)
    return _overview(question)


def _overview(question: str) -> Request:
    """Return what is asked for where nothing in particular is named."""
    if _ADDRESSES.search(question):
        return Request("addresses", "my_addresses")
    if _BOOKINGS.search(question):
        status = _STATUS.search(question)
        return Request("bookings", "list_bookings", {"status": _status(status[0])} if status else {})
    if _CREDIT.search(question):
        return Request("credit", "my_credit")
    return Request("help" if _HELP.search(question) else "unknown")


def _application(question: str) -> Request:
    application, status = _APPLICATION_ID.search(question), _APPLICATION_STATUS.search(question)
    if application is not None:
        return Request("application", "application_status", {"application_id": application[0]})
    return Request("applications", "application_status", {"status": _status(status[0])} if status else {})


def _quote(question: str, route: re.Match[str], today: date) -> Request:
    weight = _WEIGHT.search(question)
    arguments: dict[str, Any] = {
        "origin": route["origin"].strip(),
        "destination": route["destination"].strip(),
        "weight_kg": ASSUMED_WEIGHT_KG if weight is None else _kilograms(weight),
    }
    for name in ("origin_country", "destination_country"):
        code = _country(route.groupdict().get(name))
        if code is not None:
            arguments[name] = code
    equipment, day = _EQUIPMENT.search(question), _day(question, today)
    if equipment is not None:
        arguments["equipment"] = re.sub(r"dry[ _-]?van", "dry_van", equipment[0].lower())
    if day is not None:
        arguments["pickup_at"] = f"{day}T12:00:00Z"
    if re.search(r"\b(hazardous|dangerous|adr)\b", question, re.IGNORECASE):
        arguments["hazardous"] = True
    return Request("quote", "quote", arguments, assumes_weight=weight is None)


def _day(question: str, today: date) -> str | None:
    """Return the date that is named or meant, YYYY-MM-DD. A weekday is the next one after today."""
    if named := _DATE.search(question):
        return named[1]
    ahead = None
    if weekday := _WEEKDAY.search(question):
        ahead = (_WEEKDAYS.index(weekday[1].lower()) - today.weekday() - 1) % 7 + 1
    elif _TOMORROW.search(question):
        ahead = 1
    elif later := _LATER.search(question):
        ahead = int(later[1]) * (7 if later[2].lower() == "week" else 1)
    return None if ahead is None else (today + timedelta(days=ahead)).isoformat()


def _kilograms(found: re.Match[str]) -> float:
    """Read 8400, 8,400, 8 400, 8.4 (with a dot for decimals) and tonnes."""
    digits = found[1].replace(" ", "").rstrip(".,")
    digits = re.sub(r",(?=\d{3}\b)", "", digits).replace(",", ".")
    try:
        amount = float(digits)
    except ValueError:
        return 0.0
    return amount * 1000 if found[2].lower().startswith("t") else amount


def _country(text: str | None) -> str | None:
    if not text:
        return None
    try:
        return str(pycountry.countries.lookup(text).alpha_2)
    except LookupError:
        return None


def _status(text: str) -> str:
    return text.lower().replace(" ", "_").replace("canceled", "cancelled")
