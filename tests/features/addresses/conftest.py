"""A client that is logged in, and what it sends."""

from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.state.kit import StateKit
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
def hamburg() -> dict[str, Any]:
    return {
        "label": "Warehouse",
        "contact_name": "Ines Olsen",
        "phone": "+49 40 428540",
        "line1": "Am Sandtorkai 50",
        "city": "Hamburg",
        "postal_code": "20457",
        "country": "DE",
    }
