"""The cached tenant over HTTP through real replicas: separate processes, the same stores."""

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import AsyncIterator

import httpx
import pytest

from app.core.settings import Settings
from app.state.kit import StateKit, open_kit
from tests.state.people import ensure_indexes, new_person
from tests.waiting import held_by_one_task, until

CLIENTS = 1000
LOADS = re.compile(
    r'^cargoflow_store_command_duration_seconds_count\{command="tenants\.find",.*\} (\S+)$', re.MULTILINE
)

pytestmark = [pytest.mark.replicas(3), pytest.mark.settings(limit_standard="1000000/minute")]


async def loads(doors: list[httpx.AsyncClient]) -> int:
    """How often the replicas have read a tenant from MongoDB."""
    total = 0.0
    for door in doors:
        text = (await door.get("/metrics")).text
        total += sum(map(float, LOADS.findall(text)))
    return round(total)


@pytest.fixture
async def doors(replicas: list[str]) -> AsyncIterator[list[httpx.AsyncClient]]:
    """A client for each replica."""
    async with contextlib.AsyncExitStack() as stack:
        limits = httpx.Limits(max_connections=60)
        yield [
            await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=30, limits=limits))
            for url in replicas
        ]


@pytest.fixture
async def kit(settings: Settings) -> AsyncIterator[StateKit]:
    async with held_by_one_task(open_kit(settings)) as opened:
        await until(lambda: opened.mongo.health.status == "pass" and opened.redis.health.status == "pass")
        await ensure_indexes(opened)
        yield opened


async def test_a_thousand_clients_who_ask_for_a_cold_tenant_cost_one_load_and_a_change_is_seen_at_once(
    doors: list[httpx.AsyncClient], kit: StateKit
) -> None:
    admin = await new_person(kit, role="admin")
    for door in doors:
        await door.get("/api/v1/auth/me", headers=admin.headers)
    before = await loads(doors)
    answers = await asyncio.gather(
        *(doors[n % 3].get("/api/v1/tenant", headers=admin.headers) for n in range(CLIENTS))
    )
    assert Counter(answer.status_code for answer in answers) == {200: CLIENTS}
    assert len({answer.content for answer in answers}) == 1
    assert {answer.headers["x-cache"] for answer in answers} <= {"HIT", "MISS"}
    assert await loads(doors) - before == 1
    for number in range(30):
        name = f"Nordwind {number}"
        changed = await doors[number % 3].patch("/api/v1/tenant", json={"name": name}, headers=admin.headers)
        assert changed.status_code == 200
        reads = await asyncio.gather(*(door.get("/api/v1/tenant", headers=admin.headers) for door in doors))
        assert {read.json()["name"] for read in reads} == {name}
