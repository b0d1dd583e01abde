"""What a hot read costs, by the stores' own account."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator

import httpx
import pytest
import redis.asyncio

from app.core.settings import Settings
from app.state import hot_lua
from app.state.kit import StateKit
from tests.engines import MongoEngine

READS = 100
BACKGROUND = (hot_lua.BEAT.sha, "cf:jobs:")
_FIRST, _LAST = "cf-test-first", "cf-test-last"


@pytest.fixture(autouse=True)
def _no_looks_at_chats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the replica's looks for chats that were left out of MongoDB's counters."""
    for interval in ("RENEW_S", "SCAN_S", "SWEEP_S"):
        monkeypatch.setattr(f"app.features.chat.runs.{interval}", 3600)


@contextlib.asynccontextmanager
async def commands_that_redis_sees(settings: Settings) -> AsyncIterator[list[str]]:
    """Collect what clients send, as MONITOR reports it; not what scripts call inside, nor replicas' beats and
    looks at the queues of jobs.
    """
    seen: list[str] = []
    url = settings.redis_url.get_secret_value()
    async with redis.asyncio.from_url(url) as client, client.monitor() as monitor:
        await client.echo(_FIRST)
        yield seen
        await client.echo(_LAST)
        async for row in monitor.listen():
            if _FIRST in row["command"]:
                seen.clear()
            elif _LAST in row["command"]:
                break
            elif row["client_type"] != "lua" and not any(own in row["command"] for own in BACKGROUND):
                seen.append(row["command"])


@contextlib.asynccontextmanager
async def no_heartbeat(kit: StateKit) -> AsyncIterator[None]:
    """Keep the process's own beats and sweeps out of MongoDB's counters."""
    kit.processes._sweeps_from_s = math.inf
    async with kit.processes._turn:
        yield


async def warm_up(api: httpx.AsyncClient, path: str) -> None:
    """Make the session and its caller hot, and more connections than the reads and a beat will need."""
    await api.get(path)
    answers = await asyncio.gather(*(api.get(path) for _ in range(10)))
    assert {answer.status_code for answer in answers} == {200}


async def mongodb_operations(kit: StateKit) -> dict[str, int]:
    """Return MongoDB's counters of operations on documents."""
    status = await kit.mongo.database.command("serverStatus")
    return {name: status["opcounters"][name] for name in ("query", "insert", "update", "delete", "getmore")}


async def test_a_hot_read_is_one_command_to_redis_and_none_to_mongodb(
    api: httpx.AsyncClient, app_kit: StateKit, settings: Settings
) -> None:
    made = (await api.post("/sessions", json={"type": "cart", "data": {"n": 1}})).json()
    path = f"/sessions/{made['id']}"
    await warm_up(api, path)
    async with no_heartbeat(app_kit):
        before = await mongodb_operations(app_kit)
        async with commands_that_redis_sees(settings) as commands:
            for _ in range(READS):
                assert (await api.get(path)).json() == made
        after = await mongodb_operations(app_kit)
    assert len(commands) == READS
    assert {command.split()[0].upper() for command in commands} == {"EVALSHA"}
    assert len({command.split()[1] for command in commands}) == 1
    assert after == before


async def test_mongodbs_counters_would_have_shown_a_read(api: httpx.AsyncClient, app_kit: StateKit) -> None:
    made = (await api.post("/sessions", json={"type": "cart", "data": {}})).json()
    await app_kit.redis.client.flushdb()
    async with no_heartbeat(app_kit):
        before = await mongodb_operations(app_kit)
        assert (await api.get(f"/sessions/{made['id']}")).json() == made
        after = await mongodb_operations(app_kit)
    assert after["query"] > before["query"]


async def test_hot_reads_go_on_while_mongodb_is_frozen(
    api: httpx.AsyncClient, mongo_engine: MongoEngine
) -> None:
    made = (await api.post("/sessions", json={"type": "cart", "data": {"n": 1}})).json()
    path = f"/sessions/{made['id']}"
    for _ in range(3):
        await api.get(path)
    mongo_engine.freeze()
    answers = await asyncio.gather(*(api.get(path) for _ in range(20)))
    assert [answer.json() for answer in answers] == [made] * 20


async def test_a_write_of_a_hot_session_is_three_scripts_and_one_update(
    api: httpx.AsyncClient, app_kit: StateKit, settings: Settings
) -> None:
    """Admission, barrier, settling; the update alone in MongoDB, for the dropped copy tells what is there."""
    made = (await api.post("/sessions", json={"type": "cart", "data": {}})).json()
    path = f"/sessions/{made['id']}"
    await warm_up(api, path)
    await api.patch(path, json={"data": {}})  # the first time a server sees a script it takes another call
    async with no_heartbeat(app_kit):
        before = await mongodb_operations(app_kit)
        async with commands_that_redis_sees(settings) as commands:
            for n in range(10):
                assert (await api.patch(path, json={"data": {"n": n}})).json()["version"] == 3 + n
        after = await mongodb_operations(app_kit)
    assert len(commands) == 30
    assert {name: after[name] - before[name] for name in after} == {
        "query": 0, "insert": 0, "update": 10, "delete": 0, "getmore": 0,
    }  # fmt: skip
