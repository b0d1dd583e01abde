"""`GET /admin/cluster`, whichever replica answers."""

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.core.settings import Settings
from app.state.kit import StateKit, open_kit
from tests.engines import Replica
from tests.state.people import new_person
from tests.waiting import held_by_one_task

PATH = "/api/v1/admin/cluster"


@pytest.fixture
async def headers(app: FastAPI) -> dict[str, str]:
    kit: StateKit = app.state.kit
    return (await new_person(kit, role="admin")).headers


async def test_every_replica_shows_all_of_them_and_a_killed_one_no_longer(
    replica_processes: list[Replica], headers: dict[str, str]
) -> None:
    first, second = replica_processes
    async with httpx.AsyncClient(headers=headers) as http:

        async def names(replica: Replica) -> set[str]:
            shown = (await http.get(f"{replica.url}{PATH}")).json()
            assert shown["answered_by"] == replica.name
            return {row["name"] for row in shown["replicas"]}

        everybody = {"replica-1", "replica-2", "replica-test"}
        assert await names(first) == await names(second) == everybody
        second.kill()
        async with asyncio.timeout(20):
            while await names(first) != everybody - {"replica-2"}:  # noqa: ASYNC110  # it lives elsewhere
                await asyncio.sleep(0.05)


def connections_of(answer: httpx.Response) -> int:
    (replica,) = answer.json()["replicas"]
    count: int = replica["pools"]["mongo"]["open"]
    return count


async def test_it_shows_workers_stores_and_locks_and_nothing_of_another_tenant(
    app: FastAPI, client: httpx.AsyncClient, settings: Settings, headers: dict[str, str]
) -> None:
    kit: StateKit = app.state.kit
    worker = settings.model_copy(update={"replica_name": "worker-1"})
    async with held_by_one_task(open_kit(worker, kind="worker")) as other:
        async with asyncio.timeout(20):
            while len(await kit.processes.alive()) < 2:  # noqa: ASYNC110  # it registers in its own time
                await asyncio.sleep(0.05)
        async with other.locks.hold("loan:lon_secret"), asyncio.timeout(20):
            answer = await client.get(PATH, headers=headers)
            while not connections_of(answer):  # the last beat tells, and the first one may know of none yet
                answer = await client.get(PATH, headers=headers)
    shown: dict[str, Any] = answer.json()
    assert [row["name"] for row in shown["workers"]] == ["worker-1"]
    (replica,) = shown["replicas"]
    assert replica["draining"] is False
    assert replica["pools"]["mongo"]["max"] == settings.db_pool_max
    assert {name: store["status"] for name, store in shown["stores"].items()} == {
        "mongo": "pass",
        "redis": "pass",
    }
    for pools in (replica["pools"], shown["workers"][0]["pools"]):
        for pool in pools.values():
            assert 0 <= pool["in_use"] <= pool["open"] <= pool["max"]
    assert set(shown["queues"]) == {"pending", "processing", "completed", "failed", "dead"}
    (lock,) = shown["locks"]
    assert (lock["kind"], lock["token"], lock["holder"]) == ("loan", 1, "worker-1")
    for hidden in ("lon_secret", "127.0.0.1", "pid", "session"):
        assert hidden not in answer.text


async def test_a_replica_tells_that_it_drains_and_how_much_it_has_in_hand(
    app: FastAPI, client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    seen = {"draining": False, "in_flight": 0}
    app.state.draining.set()
    async with asyncio.timeout(20):
        while not (seen["draining"] and seen["in_flight"]):
            answers = await asyncio.gather(*(client.get(PATH, headers=headers) for _ in range(5)))
            (seen,) = answers[-1].json()["replicas"]
