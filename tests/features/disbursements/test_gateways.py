"""What the gateways' answers mean, and which gateway a process pays through."""

from dataclasses import replace
from typing import Any

import httpx
import pytest

from app.core.settings import Settings
from app.features.disbursements.gateway import AnswerOpenError, Order, PaymentRefusedError
from app.features.disbursements.http_gateway import HttpGateway
from app.features.disbursements.opened import open_gateway
from app.features.disbursements.simulator import SimulatedGateway
from app.state.kit import StateKit
from tests.gateway_server import Behaviour, GatewayServer

ORDER = Order("app_a", 5_000, "EUR", "Marek GmbH")
OPEN: tuple[Behaviour, ...] = (
    "lose", "fail", "pending", "silent", "rubbish", "endless", "unauthorized", "busy"
)  # fmt: skip


async def test_what_is_asked_for_twice_is_paid_once_and_found(
    gateway: HttpGateway, server: GatewayServer
) -> None:
    assert await gateway.find(ORDER.key) is None
    first, second = await gateway.pay(ORDER), await gateway.pay(ORDER)
    assert first == second == await gateway.find(ORDER.key)
    (paid,) = server.paid.values()
    assert (paid["key"], paid["amount_minor"], paid["currency"], paid["payee"]) == (
        "app_a", 5_000, "EUR", "Marek GmbH"
    )  # fmt: skip


@pytest.mark.parametrize("gateway_timeout_s", [0.5], ids=["a short timeout"])
async def test_only_a_clear_no_is_a_refusal(gateway: HttpGateway, server: GatewayServer) -> None:
    server.behaviour = lambda _: "refuse"
    with pytest.raises(PaymentRefusedError, match="account closed"):
        await gateway.pay(ORDER)
    for behaviour in OPEN:
        server.behaviour = lambda _, behaviour=behaviour: behaviour  # type: ignore[misc]
        with pytest.raises(AnswerOpenError) as told:
            await gateway.pay(ORDER)
        assert "secret" not in str(told.value), behaviour


async def test_a_gateway_that_is_not_there_leaves_everything_open(settings: Settings) -> None:
    nowhere = settings.model_copy(update={"gateway_url": "http://127.0.0.1:9"})
    async with httpx.AsyncClient() as client:
        gateway = HttpGateway(nowhere, client)
        for ask in (gateway.pay(ORDER), gateway.find(ORDER.key)):
            with pytest.raises(AnswerOpenError):
                await ask


async def test_the_simulator_pays_once_and_fails_as_its_settings_say(kit: StateKit) -> None:
    def simulator(**shares: Any) -> SimulatedGateway:
        return SimulatedGateway(replace(kit, settings=kit.settings.model_copy(update=shares)))

    with pytest.raises(AnswerOpenError):
        await simulator(gateway_simulated_failed=1.0).pay(ORDER)
    with pytest.raises(PaymentRefusedError):
        await simulator(gateway_simulated_refused=1.0).pay(ORDER)
    assert await simulator().find(ORDER.key) is None
    with pytest.raises(AnswerOpenError):
        await simulator(gateway_simulated_lost=1.0).pay(ORDER)
    paid = await simulator().find(ORDER.key)
    assert paid == await simulator().pay(ORDER)
    (row,) = await kit.mongo.collection("simulated_payments").find({}).to_list(None)
    assert (row["_id"], row["amount_minor"], row["asked"]) == ("app_a", 5_000, 2)


async def test_production_never_pays_through_the_simulator(kit: StateKit, server: GatewayServer) -> None:
    def process(**changes: Any) -> StateKit:
        return replace(kit, settings=kit.settings.model_copy(update=changes))

    async with open_gateway(process(app_env="production")) as gateway:
        assert gateway is None
    async with open_gateway(process(app_env="production", gateway_url=server.url)) as gateway:
        assert isinstance(gateway, HttpGateway)
        await gateway.pay(ORDER)
    async with open_gateway(process()) as gateway:
        assert isinstance(gateway, SimulatedGateway)
