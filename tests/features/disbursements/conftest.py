"""Those who review and who apply, a gateway that behaves as told, and an application that pays by it."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from app.core.settings import Settings
from app.features.disbursements.http_gateway import HttpGateway
from tests.gateway_server import GatewayServer, gateway_server


@pytest.fixture
async def server() -> AsyncIterator[GatewayServer]:
    async with gateway_server() as opened:
        yield opened


@pytest.fixture
def gateway_timeout_s() -> float:
    """So long that no busy machine keeps an answer from being heard."""
    return 20.0


@pytest.fixture
async def gateway(
    settings: Settings, server: GatewayServer, gateway_timeout_s: float
) -> AsyncIterator[HttpGateway]:
    changed = {
        "gateway_url": server.url + "/",
        "gateway_api_key": SecretStr("gk-1"),
        "gateway_timeout_s": gateway_timeout_s,
    }
    async with httpx.AsyncClient() as client:
        yield HttpGateway(settings.model_copy(update=changed), client)


@pytest.fixture
async def paying(app: FastAPI, gateway: HttpGateway) -> None:
    """The application pays through the gateway on the socket, and not through the simulator."""
    app.state.gateway = gateway
