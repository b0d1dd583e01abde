"""A client that is logged in as a shipper, and underwriters of the same tenant."""

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
async def underwriter(app_kit: StateKit, me: Person) -> Person:
    """A colleague who reviews."""
    return await colleague(app_kit, me, "underwriter")


@pytest.fixture
async def admin(app_kit: StateKit, me: Person) -> Person:
    """Another colleague who reviews, and may do so for others."""
    return await colleague(app_kit, me, "admin")


async def colleague(kit: StateKit, person: Person, role: str) -> Person:
    return await log_in(kit, await new_account(kit, role=role, tenant_id=person.account.tenant_id))
