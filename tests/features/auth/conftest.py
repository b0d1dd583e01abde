"""A client of an application with its indexes in place, and people to talk to it as."""

import httpx
import pytest
from fastapi import FastAPI

from app.state import jobs
from app.state.kit import StateKit
from tests.state.people import ensure_indexes


@pytest.fixture
async def kit(app: FastAPI) -> StateKit:
    """The kit inside the application."""
    opened: StateKit = app.state.kit
    await ensure_indexes(opened)
    await jobs.ensure_indexes(opened.mongo)
    return opened


@pytest.fixture
async def api(kit: StateKit, client: httpx.AsyncClient) -> httpx.AsyncClient:
    client.base_url = httpx.URL("http://cargoflow.test/api/v1")
    return client
