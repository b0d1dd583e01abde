"""A client of an application, and a user to talk to it as."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.state.kit import StateKit
from tests.features.bookings.shipments import shipment
from tests.state.people import Person, new_person


@pytest.fixture
async def app_kit(app: FastAPI) -> StateKit:
    """The kit inside the application."""
    opened: StateKit = app.state.kit
    return opened


@pytest.fixture
async def me(app_kit: StateKit) -> Person:
    return await new_person(app_kit, role="shipper")


@pytest.fixture
async def api(client: httpx.AsyncClient, me: Person) -> httpx.AsyncClient:
    """A client that is logged in as `me`."""
    client.base_url = httpx.URL("http://cargoflow.test/api/v1")
    client.headers.update(me.headers)
    return client


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
