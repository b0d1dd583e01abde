"""What a shipment costs, line by line. Pure, and exact: whole minor units and decimals, never a float.

The same shipment asked for at the same lead time costs the same, on any replica and any day; the lines add up
to the price. TARIFF is in units of the tenant's currency (2 decimals, or as many as it has): one set of
numbers for every currency, for nothing here knows what a kilometre costs in which country.

1. base fee of the equipment
2. kilometres, great circle on the sphere of the mean radius, by the equipment's rate
3. weight above FREE_WEIGHT_KG, by the started 100 kg and 100 km
4. HAZARD_SHARE of the lines so far for dangerous goods, at least HAZARD_MIN
5. a share of the lines so far, by days of lead time: LEAD_TIME
6. what is lacking to PRICE_MIN
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import ROUND_CEILING, ROUND_HALF_UP, Decimal
from math import asin, cos, radians, sin, sqrt
from typing import Final, Literal

from app.core.money import minor_digits

Equipment = Literal["dry_van", "reefer", "flatbed", "container"]


@dataclass(frozen=True, slots=True)
class Rate:
    """What a kind of equipment costs, in units of the currency."""

    base: Decimal
    per_km: Decimal


TARIFF: Final[Mapping[Equipment, Rate]] = {
    "dry_van": Rate(Decimal("95.00"), Decimal("1.38")),
    "reefer": Rate(Decimal("140.00"), Decimal("1.79")),
    "flatbed": Rate(Decimal("120.00"), Decimal("1.62")),
    "container": Rate(Decimal("160.00"), Decimal("1.51")),
}
FREE_WEIGHT_KG: Final = Decimal(5000)
PER_100_KG_AND_100_KM: Final = Decimal("0.11")
HAZARD_SHARE: Final = Decimal("0.18")
HAZARD_MIN: Final = Decimal("75.00")
LEAD_TIME: Final = (
    (timedelta(days=1), Decimal("0.25"), "pick-up within a day"),
    (timedelta(days=3), Decimal("0.10"), "pick-up within three days"),
    (timedelta(days=14), Decimal(0), "pick-up within two weeks"),
)
"""Lead times up to which a share is added; what is booked longer ahead gets EARLY_SHARE off."""
EARLY_SHARE: Final = Decimal("-0.05")
PRICE_MIN: Final = Decimal("150.00")
EARTH_RADIUS_KM: Final = 6371.0088
"""The mean radius, (2a + b) / 3 of WGS 84."""

Point = tuple[float, float]
"""Latitude and longitude in degrees."""


@dataclass(frozen=True, slots=True)
class Shipment:
    """What the price depends on."""

    origin: Point
    destination: Point
    equipment: Equipment
    weight_kg: Decimal
    hazardous: bool
    lead_time: timedelta


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a price. `code` is stable; `description` is for people."""

    code: str
    description: str
    amount_minor: int


@dataclass(frozen=True, slots=True)
class Price:
    """A price and how it comes about: `amount_minor` is the sum of the lines."""

    currency: str
    distance_km: int
    lines: tuple[Line, ...]

    @property
    def amount_minor(self) -> int:
        """The price in the currency's smallest unit."""
        return sum(line.amount_minor for line in self.lines)


def distance_km(origin: Point, destination: Point) -> int:
    """Return the great-circle distance in whole kilometres, by the haversine formula."""
    (lat, lon), (other_lat, other_lon) = (map(radians, point) for point in (origin, destination))
    half_chord = sin((other_lat - lat) / 2) ** 2 + cos(lat) * cos(other_lat) * sin((other_lon - lon) / 2) ** 2
    return round(2 * EARTH_RADIUS_KM * asin(sqrt(half_chord)))


def price_of(shipment: Shipment, currency: str) -> Price:
    """Return the price of a shipment. Lines that come to nothing are left out."""
    bill = _Bill(minor_digits(currency))
    rate = TARIFF[shipment.equipment]
    km = distance_km(shipment.origin, shipment.destination)
    equipment = shipment.equipment.replace("_", " ")
    bill.add("base", f"Base fee, {equipment}", rate.base)
    bill.add("linehaul", f"{km} km at {rate.per_km} a km, {equipment}", rate.per_km * km)
    hundreds_of_kg, hundreds_of_km = _started_hundreds(shipment.weight_kg - FREE_WEIGHT_KG), Decimal(km) / 100
    bill.add(
        "weight",
        f"{hundreds_of_kg} x 100 kg above {FREE_WEIGHT_KG} kg at {PER_100_KG_AND_100_KM} a 100 km",
        PER_100_KG_AND_100_KM * hundreds_of_kg * hundreds_of_km,
    )
    if shipment.hazardous:
        share = max(bill.total * HAZARD_SHARE, HAZARD_MIN)
        bill.add("hazard", f"Dangerous goods, {HAZARD_SHARE:.0%}, at least {HAZARD_MIN}", share)
    lead_share, reason = lead_time_share(shipment.lead_time)
    bill.add("lead_time", f"{lead_share:+.0%}: {reason}", bill.total * lead_share)
    bill.add("minimum", f"Up to the least price, {PRICE_MIN}", max(PRICE_MIN - bill.total, Decimal(0)))
    return Price(currency, km, tuple(bill.lines))


def lead_time_share(lead_time: timedelta) -> tuple[Decimal, str]:
    """Return the share that a lead time adds to the price, and why."""
    for until, share, reason in LEAD_TIME:
        if lead_time <= until:
            return share, reason
    return EARLY_SHARE, "booked more than two weeks ahead"


class _Bill:
    """Lines, rounded one by one, so that what is shown adds up."""

    def __init__(self, digits: int) -> None:
        self.lines: list[Line] = []
        self.total = Decimal(0)
        self._unit = Decimal(1).scaleb(-digits)

    def add(self, code: str, description: str, amount: Decimal) -> None:
        rounded = amount.quantize(self._unit, rounding=ROUND_HALF_UP)
        if rounded:
            self.total += rounded
            self.lines.append(Line(code, description, int(rounded / self._unit)))


def _started_hundreds(kilograms: Decimal) -> int:
    return max(0, int((kilograms / 100).to_integral_value(rounding=ROUND_CEILING)))
