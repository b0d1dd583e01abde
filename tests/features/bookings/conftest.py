"""A client that is logged in, and a dispatcher of the same tenant."""

import httpx
import pytest
from fastapi import FastAPI

from app.state.kit import StateKit
from tests.state.people import Person, log_in, new_account, new_person


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
async def dispatcher(app_kit: StateKit, me: Person) -> Person:
    """A colleague who is staff."""
    account = await new_account(app_kit, role="dispatcher", tenant_id=me.account.tenant_id)
    return await log_in(app_kit, account)
