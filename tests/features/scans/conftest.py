"""An applicant with an application, and an underwriter of the same tenant."""

from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.state.kit import StateKit
from tests.features.scans import samples
from tests.state.people import Person, log_in, new_account, new_person

APPLICATION: dict[str, Any] = {
    "company_name": samples.COMPANY,
    "requested_amount": {"amount_minor": 5_000_000, "currency": "EUR"},
    "terms_days": 30,
    "registration_number": samples.REGISTRATION_NUMBER,
    "annual_revenue": {"amount_minor": samples.ANNUAL_REVENUE_MINOR, "currency": "EUR"},
    "years_trading": 12,
}


@pytest.fixture
async def app_kit(app: FastAPI) -> StateKit:
    """The kit inside the application."""
    opened: StateKit = app.state.kit
    return opened


@pytest.fixture
async def me(app_kit: StateKit) -> Person:
    return await new_person(app_kit, role="shipper")


@pytest.fixture
async def underwriter(app_kit: StateKit, me: Person) -> Person:
    return await log_in(
        app_kit, await new_account(app_kit, role="underwriter", tenant_id=me.account.tenant_id)
    )


@pytest.fixture
async def api(client: httpx.AsyncClient, me: Person) -> httpx.AsyncClient:
    """A client that is logged in as `me`."""
    client.base_url = httpx.URL("http://cargoflow.test/api/v1")
    client.headers.update(me.headers)
    return client


@pytest.fixture
async def documents(api: httpx.AsyncClient) -> str:
    """The path of an application's documents."""
    made = await api.post("/applications", json=APPLICATION)
    assert made.status_code == 201, made.text
    return f"/applications/{made.json()['id']}/documents"
