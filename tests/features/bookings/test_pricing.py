"""What a shipment costs, and that it can be explained."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.features.bookings.pricing import LEAD_TIME, PRICE_MIN, TARIFF, Shipment, distance_km, price_of

HAMBURG, ROTTERDAM = (53.5507, 9.9930), (51.9225, 4.4792)
SHIPMENT = Shipment(
    origin=HAMBURG,
    destination=ROTTERDAM,
    equipment="dry_van",
    weight_kg=Decimal(8400),
    hazardous=False,
    lead_time=timedelta(days=5),
)

POINTS = st.tuples(st.floats(-90, 90), st.floats(-180, 180))
SHIPMENTS = st.builds(
    Shipment,
    origin=POINTS,
    destination=POINTS,
    equipment=st.sampled_from(sorted(TARIFF)),
    weight_kg=st.decimals("0.001", 100_000, places=3),
    hazardous=st.booleans(),
    lead_time=st.timedeltas(timedelta(0), timedelta(days=366)),
)


def amounts(shipment: Shipment, currency: str = "EUR") -> dict[str, int]:
    return {line.code: line.amount_minor for line in price_of(shipment, currency).lines}


def test_the_distance_is_the_great_circle() -> None:
    assert distance_km(HAMBURG, ROTTERDAM) == 413
    assert distance_km(HAMBURG, HAMBURG) == 0
    assert distance_km((0, 0), (0, 180)) == 20015


def test_a_price_is_explained_line_by_line() -> None:
    price = price_of(SHIPMENT, "EUR")
    assert price.distance_km == 413
    assert [(line.code, line.description, line.amount_minor) for line in price.lines] == [
        ("base", "Base fee, dry van", 9500),
        ("linehaul", "413 km at 1.38 a km, dry van", 56994),
        ("weight", "34 x 100 kg above 5000 kg at 0.11 a 100 km", 1545),
    ]
    assert price.amount_minor == 9500 + 56994 + 1545


def test_dangerous_goods_and_short_notice_cost_a_share_more_and_early_booking_less() -> None:
    subtotal = price_of(SHIPMENT, "EUR").amount_minor
    assert amounts(replace(SHIPMENT, hazardous=True))["hazard"] == round(subtotal * 0.18)
    assert amounts(replace(SHIPMENT, lead_time=timedelta(hours=24)))["lead_time"] == round(subtotal * 0.25)
    assert amounts(replace(SHIPMENT, lead_time=timedelta(days=3)))["lead_time"] == round(subtotal * 0.1)
    assert amounts(replace(SHIPMENT, lead_time=timedelta(days=15)))["lead_time"] == -round(subtotal * 0.05)


def test_nothing_costs_less_than_the_least() -> None:
    price = price_of(replace(SHIPMENT, destination=HAMBURG), "EUR")
    assert price.amount_minor == PRICE_MIN * 100
    assert price.lines[-1].code == "minimum"


@pytest.mark.parametrize(("currency", "unit"), [("EUR", 100), ("JPY", 1), ("KWD", 1000)])
def test_amounts_are_in_the_smallest_unit_that_the_currency_has(currency: str, unit: int) -> None:
    assert amounts(SHIPMENT, currency)["base"] == 95 * unit


@given(SHIPMENTS, st.sampled_from(["EUR", "JPY", "KWD"]))
def test_any_price_is_the_sum_of_its_lines_and_comes_out_the_same_again(
    shipment: Shipment, currency: str
) -> None:
    price = price_of(shipment, currency)
    assert price == price_of(shipment, currency)
    assert price.amount_minor == sum(line.amount_minor for line in price.lines) > 0
    assert all(line.amount_minor for line in price.lines)


@given(SHIPMENTS, st.decimals(0, 50_000, places=3))
def test_more_weight_and_danger_never_cost_less(shipment: Shipment, more: Decimal) -> None:
    heavier = replace(shipment, weight_kg=shipment.weight_kg + more, hazardous=True)
    assert price_of(heavier, "EUR").amount_minor >= price_of(shipment, "EUR").amount_minor


def test_lead_times_are_in_order() -> None:
    assert list(LEAD_TIME) == sorted(LEAD_TIME, key=lambda row: row[0])
