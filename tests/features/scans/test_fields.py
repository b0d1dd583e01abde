"""Amounts, dates, fields and their comparison, by rules alone: no engine is needed."""

from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from app.features.scans.comparison import (
    compare,
    same_company,
    same_registration_number,
    same_revenue,
)
from app.features.scans.fields import FIELDS_MAX, ROW_MAX_CHARACTERS, find_fields
from app.features.scans.pages import Page, Row, Word, rows_of, slope_of
from app.features.scans.written import amounts, days


def page(*rows: str, confidence: float = 1.0, number: int = 1) -> Page:
    return Page(number, "ocr", tuple(Row(text, confidence) for text in rows))


def found(*rows: str) -> dict[str, list[Any]]:
    fields: dict[str, list[Any]] = {}
    for field in find_fields([page(*rows)]):
        fields.setdefault(field.name, []).append((field.value, field.basis))
    return fields


@pytest.mark.parametrize(
    ("text", "number", "currency"),
    [
        ("EUR 4,812,300.00", "4812300", "EUR"),
        ("4.812.300,00 EUR", "4812300", "EUR"),
        ("€12.495,00", "12495", "EUR"),
        ("$1,234", "1234", "USD"),
        ("1 234,56 €", "1234.56", "EUR"),
        ("1'234.50 CHF", "1234.50", "CHF"),
        ("EUR 3,905, 100.00", "3905100", "EUR"),
        ("EUR 4.8 million", "4800000", "EUR"),
        ("4,8 Mio. EUR", "4800000", "EUR"),
        ("£950k", "950000", "GBP"),
        ("12.5", "12.5", None),
    ],
)
def test_an_amount_is_read_however_it_is_written(text: str, number: str, currency: str | None) -> None:
    (amount,) = amounts(text)
    assert (amount.number, amount.currency) == (Decimal(number), currency)


@pytest.mark.parametrize(
    ("text", "day", "strength"),
    [
        ("14.03.2026", date(2026, 3, 14), 1),
        ("2026-03-14", date(2026, 3, 14), 1),
        ("14 March 2026", date(2026, 3, 14), 1),
        ("March 14, 2026", date(2026, 3, 14), 1),
        ("31. Dezember 2025", date(2025, 12, 31), 1),
        ("03/14/2026", date(2026, 3, 14), 1),
        ("03/04/2026", date(2026, 4, 3), 0.5),
    ],
)
def test_a_date_is_read_however_it_is_written_and_an_ambiguous_one_is_half_as_sure(
    text: str, day: date, strength: float
) -> None:
    (read,) = days(text)
    assert (read.day, read.strength) == (day, strength)
    assert not list(days("31.02.2026 99.99.2026 1.2.1066 12345"))


def test_words_of_a_tilted_page_come_in_rows_from_left_to_right() -> None:
    words = [
        Word("Total", 0.9, 100, 100, 150, 120),
        Word("EUR", 0.9, 700, 130, 740, 150),
        Word("5.00", 0.7, 750, 132, 790, 152),
        Word("Date", 0.9, 100, 140, 150, 160),
    ]
    rows = rows_of(words, slope=slope_of([((100, 120), (700, 150))]))
    assert [row.text for row in rows] == ["Total  EUR 5.00", "Date"]
    assert rows[0].confidence == pytest.approx(0.833, abs=0.001)


def test_the_fields_of_a_german_invoice_are_found_too() -> None:
    fields = found(
        "Müller & Söhne Spedition GmbH & Co. KG",
        "Handelsregister  HRA 70 4421",
        "Rechnungsdatum  02.01.2026",
        "Rechnung an  Alster Maschinenbau AG",
        "USt-IdNr. DE123456789",
        "Zwischensumme  10.500,00 EUR",
        "Gesamtbetrag  12.495,00 EUR",
        "Zahlbar bis 01.02.2026",
    )
    assert fields == {
        "company": [
            ("Müller & Söhne Spedition GmbH & Co. KG", "issuer"),
            ("Alster Maschinenbau AG", "recipient"),
        ],
        "registration_number": [("HRA 70 4421", None)],
        "revenue": [({"amount_minor": 1_249_500, "currency": "EUR"}, "invoice_total")],
        "date": [("2026-01-02", "invoice_date"), ("2026-02-01", "due_date")],
    }


def test_a_value_may_stand_below_its_label_and_its_currency_elsewhere() -> None:
    sure, below = (
        next(field for field in find_fields([page(*rows)]) if field.name == "revenue")
        for rows in (
            ("Annual revenue 2025  EUR 4,812,300",),
            ("All amounts in EUR", "Annual revenue 2025", "4,812,300"),
        )
    )
    assert sure.value == below.value == {"amount_minor": 481_230_000, "currency": "EUR"}
    assert below.confidence < sure.confidence


def test_nothing_is_made_up_and_a_flood_is_kept_small() -> None:
    assert found("Dear all,", "we met on Tuesday; 3 of 5 came.", "Total eclipse in 2026") == {}
    flood = find_fields([page(*(f"Firm{number} Trading Ltd" for number in range(100)), "A " * 100_000)])
    assert len(flood) == FIELDS_MAX
    assert len(find_fields([page("x" * ROW_MAX_CHARACTERS + " EUR 1.00 total")])) == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Nordwind Logistik GmbH", "NORDWIND LOGISTIK", True),
        ("Müller & Söhne GmbH", "Mueller und Soehne GmbH", True),
        ("Acme Limited", "ACME Ltd.", True),
        ("Nordwlnd Logistik GmbH", "Nordwind Logistik GmbH", True),
        ("Marek AG", "Marek GmbH", False),
        ("Nordwind", "Südwind", False),
    ],
)
def test_names_are_compared_as_people_would(one: str, other: str, *, same: bool) -> None:
    assert same_company(one, other) is same


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("HRB 123456", "hrb-l23456", True),
        ("HRB 123 456", "123456", True),
        ("HRB 123456", "HRA 123456", False),
        ("HRB 123456", "HRB 123457", False),
        ("HRB", "HRA", False),
    ],
)
def test_registration_numbers_are_compared_without_punctuation(one: str, other: str, *, same: bool) -> None:
    assert same_registration_number(one, other) is same


def test_revenues_agree_within_the_tolerance_and_in_one_currency() -> None:
    stated = {"amount_minor": 100_000_000, "currency": "EUR"}
    assert same_revenue({"amount_minor": 105_000_000, "currency": "EUR"}, stated)
    assert not same_revenue({"amount_minor": 105_000_001, "currency": "EUR"}, stated)
    assert not same_revenue({"amount_minor": 100_000_000, "currency": "USD"}, stated)


def test_one_agreeing_value_is_enough_and_what_is_not_stated_or_not_sure_is_not_compared() -> None:
    stated = {"company_name": "Alster Maschinenbau AG", "registration_number": None, "annual_revenue": None}
    rows = ("Nordwind Logistik GmbH", "Bill to  Alster Maschinenbau AG", "Register No.  HRB 1234")
    agreed = compare(find_fields([page(*rows)]), stated)
    assert (agreed.confirmed, agreed.mismatches) == (("company_name",), ())
    unsure = compare(find_fields([page(*rows[:1], confidence=0.4)]), stated)
    assert (unsure.confirmed, unsure.mismatches) == ((), ())
    (mismatch,) = compare(find_fields([page(*rows[:1])]), stated).mismatches
    assert (mismatch.field, mismatch.stated, mismatch.found) == (
        "company_name",
        "Alster Maschinenbau AG",
        "Nordwind Logistik GmbH",
    )
