"""A client of an application, and a user to talk to it as."""

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
