"""A language model, for files whose application has one, and something to ask about."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from tests.features.bookings.shipments import shipment
from tests.model_server import ModelServer, model_server
from tests.state.people import Person


@pytest.fixture
async def model() -> AsyncIterator[ModelServer]:
    async with model_server() as server:
        yield server


@pytest.fixture
async def booking_of(client: httpx.AsyncClient) -> Callable[[Person], Awaitable[dict[str, Any]]]:
    """Return a function that books something for a person."""

    async def book(person: Person) -> dict[str, Any]:
        url = "http://cargoflow.test/api/v1/bookings"
        answer = await client.post(url, json=shipment(), headers=person.headers)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    return book
