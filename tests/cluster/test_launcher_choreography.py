"""Scaling and restarting while requests come in: none of them may fail."""

import asyncio
import contextlib
import itertools
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from tests.cluster.harness import Cluster, until

FULL = bool(os.environ.get("CARGOFLOW_FULL"))
REQUESTS_PER_S = 200
CLIENTS = 20


class Traffic:
    """200 requests a second over 20 kept-alive connections, GET and POST in turn.

    A request fails unless a replica answers it.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self.answered_by: Counter[str] = Counter()
        self.failures: list[str] = []

    async def client(self, http: httpx.AsyncClient, number: int) -> None:
        for turn in itertools.count(number):
            try:
                response = await (
                    http.get(f"{self._url}/health")
                    if turn % 2
                    else http.post(f"{self._url}/api/v1/quotes", json={})
                )
            except httpx.HTTPError as error:
                self.failures.append(repr(error))
            else:
                self.answered_by[response.headers.get("x-replica", "")] += 1
                if response.status_code >= 500 or "x-replica" not in response.headers:
                    self.failures.append(
                        f"{response.request.method} {response.status_code} {response.text[:200]}"
                    )
            await asyncio.sleep(CLIENTS / REQUESTS_PER_S)


@contextlib.asynccontextmanager
async def traffic(cluster: Cluster) -> AsyncIterator[Traffic]:
    """Send requests while the block runs; then none may have failed, or been saved by a retry of Nginx."""
    seen = Traffic(cluster.url)
    logged_before = len(cluster.log("nginx"))
    limits = httpx.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS)
    async with httpx.AsyncClient(limits=limits, timeout=20) as http, asyncio.TaskGroup() as group:
        clients = [group.create_task(seen.client(http, number)) for number in range(CLIENTS)]
        await until(lambda: seen.answered_by.total() >= REQUESTS_PER_S)
        try:
            yield seen
        finally:
            for client in clients:
                client.cancel()
    assert seen.failures == []
    assert [line for line in cluster.log("nginx")[logged_before:].splitlines() if "[error]" in line] == []


def pids_of_replicas(cluster: Cluster) -> dict[str, int]:
    return {replica["name"]: replica["pid"] for replica in cluster.status()["replicas"]}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    data = tmp_path_factory.mktemp("choreography") / "data"
    with Cluster(data, replicas=3, env={"LIMIT_ANONYMOUS": "1000000/minute"}) as running:
        yield running


async def test_a_rolling_restart_replaces_every_replica_and_worker_without_a_failed_request(
    cluster: Cluster,
) -> None:
    before = cluster.pids()
    async with traffic(cluster):
        for _ in range(5 if FULL else 1):
            await asyncio.to_thread(cluster.cli, "restart")
    after = cluster.pids()
    assert {name for name in before if before[name] != after[name]} == {
        "replica-1",
        "replica-2",
        "replica-3",
        "worker-1",
    }
    assert all(replica["ready"] for replica in cluster.status()["replicas"])


async def test_scaling_up_and_down_changes_who_answers_without_a_failed_request(cluster: Cluster) -> None:
    old = pids_of_replicas(cluster)
    async with traffic(cluster) as seen:
        await asyncio.to_thread(cluster.cli, "scale", "5", "--workers", "2")
        assert [worker["name"] for worker in cluster.status()["workers"]] == ["worker-1", "worker-2"]
        seen.answered_by.clear()
        await until(lambda: len(seen.answered_by) == 5)
        await asyncio.to_thread(cluster.cli, "scale", "3", "--workers", "1")
        seen.answered_by.clear()
        await until(lambda: seen.answered_by.total() >= REQUESTS_PER_S)
        assert set(seen.answered_by) == {"replica-1", "replica-2", "replica-3"}
    assert pids_of_replicas(cluster) == old
    assert [worker["name"] for worker in cluster.status()["workers"]] == ["worker-1"]


async def test_a_single_replica_is_restarted_without_a_failed_request(cluster: Cluster) -> None:
    await asyncio.to_thread(cluster.cli, "scale", "1")
    before = pids_of_replicas(cluster)
    async with traffic(cluster):
        await asyncio.to_thread(cluster.cli, "restart")
    after = pids_of_replicas(cluster)
    assert set(after) == {"replica-1"}
    assert after != before


async def test_two_changes_at_once_run_one_after_the_other(cluster: Cluster) -> None:
    async with traffic(cluster):
        await asyncio.gather(
            asyncio.to_thread(cluster.cli, "scale", "2"), asyncio.to_thread(cluster.cli, "restart")
        )
        await asyncio.to_thread(cluster.cli, "scale", "3")
    assert [replica["ready"] for replica in cluster.status()["replicas"]] == [True, True, True]


async def test_down_interrupts_a_restart_and_leaves_nothing_running(tmp_path: Path) -> None:
    async with Cluster(tmp_path / "data", replicas=2) as cluster:
        restart = asyncio.create_task(asyncio.to_thread(cluster.cli, "restart", check=False))
        await until(lambda: "replica-1: stopped" in cluster.log("supervisor"))
        await asyncio.to_thread(cluster.cli, "down")
        assert (await restart).returncode == 1
        assert cluster.status()["replicas"] == []
        assert not (cluster.data / "run" / "cluster.json").exists()
