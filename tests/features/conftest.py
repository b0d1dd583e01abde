"""Who asks a feature: a client that is logged in as a shipper, colleagues of the same tenant, and a second
replica's kit over the same stores. A folder whose people differ has fixtures of its own.
"""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from app.core.settings import Settings
from app.state.kit import StateKit, open_kit
from tests.state.people import Person, colleague, new_person
from tests.waiting import held_by_one_task, until


@pytest.fixture
async def app_kit(app: FastAPI) -> StateKit:
    """The kit inside the application."""
    opened: StateKit = app.state.kit
    return opened


@pytest.fixture
async def other_kit(settings: Settings) -> AsyncIterator[StateKit]:
    async with held_by_one_task(open_kit(settings)) as opened:
        await until(lambda: opened.mongo.health.status == "pass" and opened.redis.health.status == "pass")
        yield opened


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
    """A colleague who assigns."""
    return await colleague(app_kit, me, "dispatcher")


@pytest.fixture
async def underwriter(app_kit: StateKit, me: Person) -> Person:
    """A colleague who reviews."""
    return await colleague(app_kit, me, "underwriter")


@pytest.fixture
async def admin(app_kit: StateKit, me: Person) -> Person:
    """Another colleague who reviews, and may do so for others."""
    return await colleague(app_kit, me, "admin")
