"""Carts and preferences have a shape; what it doesn't name is the client's own."""

from typing import Any

import httpx
import pytest

from tests.features.answers import wrong_fields

CART = {"items": [{"sku": "pallet-eur", "quantity": 2, "colour": "red"}], "mine": [1, None, {"x": 1}]}
PREFERENCES = {"theme": "dark", "language": "pt-BR", "units": "metric", "columns": ["id", "price"]}


@pytest.mark.parametrize(("kind", "data"), [("cart", CART), ("preferences", PREFERENCES)])
async def test_what_has_the_shape_is_kept_with_everything_else_in_it(
    api: httpx.AsyncClient, kind: str, data: dict[str, Any]
) -> None:
    made = await api.post("/sessions", json={"type": kind, "data": data})
    assert (made.status_code, made.json()["data"]) == (201, data)


WRONG = [
    ("cart", {"items": {}}, "data.items"),
    ("cart", {"items": ["pallet"]}, "data.items.0"),
    ("cart", {"items": [{}, {"quantity": 0}]}, "data.items.1.quantity"),
    ("cart", {"items": [{"quantity": "2"}]}, "data.items.0.quantity"),
    ("cart", {"items": [{"sku": 7}]}, "data.items.0.sku"),
    ("cart", {"items": [{}] * 101}, "data.items"),
    ("preferences", {"units": "parsec"}, "data.units"),
    ("preferences", {"language": "english please"}, "data.language"),
    ("preferences", {"theme": ["dark"]}, "data.theme"),
]


@pytest.mark.parametrize(("kind", "data", "field"), WRONG)
async def test_what_has_not_is_refused_by_name_however_it_is_written(
    api: httpx.AsyncClient, kind: str, data: dict[str, Any], field: str
) -> None:
    assert wrong_fields(await api.post("/sessions", json={"type": kind, "data": data})) == {field}
    made = (await api.post("/sessions", json={"type": kind, "data": {"kept": True}})).json()
    for method in ("PUT", "PATCH"):
        refused = await api.request(method, f"/sessions/{made['id']}", json={"data": data})
        assert wrong_fields(refused) == {field}
    assert (await api.get(f"/sessions/{made['id']}")).json() == made


async def test_a_patch_is_judged_by_what_comes_of_it(api: httpx.AsyncClient) -> None:
    made = (await api.post("/sessions", json={"type": "preferences", "data": PREFERENCES})).json()
    patched = await api.patch(f"/sessions/{made['id']}", json={"data": {"units": None, "theme": "light"}})
    assert patched.status_code == 200
    assert "units" not in patched.json()["data"]


async def test_other_types_hold_what_they_like(api: httpx.AsyncClient) -> None:
    made = await api.post("/sessions", json={"type": "temp_data", "data": {"items": {}, "units": 7}})
    assert made.status_code == 201
