"""An applicant with an application, and an underwriter of the same tenant."""

from typing import Any

import httpx
import pytest

from tests.features.scans import samples

APPLICATION: dict[str, Any] = {
    "company_name": samples.COMPANY,
    "requested_amount": {"amount_minor": 5_000_000, "currency": "EUR"},
    "terms_days": 30,
    "registration_number": samples.REGISTRATION_NUMBER,
    "annual_revenue": {"amount_minor": samples.ANNUAL_REVENUE_MINOR, "currency": "EUR"},
    "years_trading": 12,
}


@pytest.fixture
async def documents(api: httpx.AsyncClient) -> str:
    """The path of an application's documents."""
    made = await api.post("/applications", json=APPLICATION)
    assert made.status_code == 201, made.text
    return f"/applications/{made.json()['id']}/documents"
