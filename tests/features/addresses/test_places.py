"""Which city is meant."""

import pytest

from app.features.addresses.places import locate


@pytest.mark.parametrize(
    ("country", "city", "lat", "lon"),
    [
        ("DE", "Hamburg", 53.55, 9.99),
        ("DE", "KÖLN", 50.93, 6.95),
        ("DE", "koeln", 50.93, 6.95),
        ("DE", "Cologne", 50.93, 6.95),
        ("FR", "saint étienne", 45.43, 4.39),
        ("US", "New York", 40.71, -74.01),
        ("US", "New York City", 40.71, -74.01),
        ("JP", "Tokyo", 35.69, 139.69),
    ],
)
def test_a_city_is_found_by_any_name_it_has(country: str, city: str, lat: float, lon: float) -> None:
    found = locate(country, city)
    assert found is not None
    assert found == pytest.approx((lat, lon), abs=0.01)


def test_a_name_that_several_cities_have_is_not_guessed_but_told_apart_by_the_region() -> None:
    assert locate("US", "Springfield") is None
    illinois, missouri = locate("US", "Springfield", "IL"), locate("US", "Springfield", "mo")
    assert illinois == pytest.approx((39.80, -89.64), abs=0.01)
    assert missouri == pytest.approx((37.22, -93.30), abs=0.01)


@pytest.mark.parametrize(("country", "city"), [("DE", "Nowhere"), ("DE", ""), ("DE", "…"), ("ZZ", "Hamburg")])
def test_what_is_not_in_the_table_is_not_found(country: str, city: str) -> None:
    assert locate(country, city) is None
