"""Which gateway a process pays through, for as long as it runs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import httpx
from fastapi import Depends, Request

from app.features.disbursements.gateway import Gateway
from app.features.disbursements.http_gateway import HttpGateway
from app.features.disbursements.simulator import SimulatedGateway
from app.state.kit import StateKit


@asynccontextmanager
async def open_gateway(kit: StateKit) -> AsyncIterator[Gateway | None]:
    """Open the gateway of the settings: a real one by its URL; without that the simulator, and in production
    none, so that nobody takes a pretence for a payment.
    """
    if kit.settings.gateway_url:
        async with httpx.AsyncClient(timeout=kit.settings.gateway_timeout_s) as client:
            yield HttpGateway(kit.settings, client)
    elif kit.settings.production:
        yield None
    else:
        yield SimulatedGateway(kit)


async def _gateway(request: Request) -> Gateway | None:
    gateway: Gateway | None = request.app.state.gateway
    return gateway


OpenedGateway = Annotated[Gateway | None, Depends(_gateway)]
