"""Sessions over HTTP through real replicas: separate processes, the same stores, nothing in between."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from app.state.kit import StateKit
from tests.cluster.counts import full
from tests.engines import Replica
from tests.state.people import Person, new_person

PAIRS = full(5000, 200)
ROUNDS = full(100, 15)

pytestmark = pytest.mark.settings(limit_standard="1000000/minute")


@pytest.fixture
async def me(kit: StateKit) -> Person:
    return await new_person(kit)


@pytest.fixture
async def doors(replicas: list[str], me: Person) -> AsyncIterator[list[httpx.AsyncClient]]:
    """A client for each replica, logged in."""
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                httpx.AsyncClient(
                    base_url=f"{url}/api/v1",
                    headers=me.headers,
                    timeout=20,
                    limits=httpx.Limits(max_connections=70),
                )
            )
            for url in replicas
        ]


async def make(door: httpx.AsyncClient, data: dict[str, Any], **fields: Any) -> str:
    answer = await door.post("/sessions", json={"type": "cart", "data": data, **fields})
    assert answer.status_code == 201, answer.text
    path: str = f"/sessions/{answer.json()['id']}"
    return path


async def statuses(calls: list[Any]) -> Counter[int]:
    return Counter(answer.status_code for answer in await asyncio.gather(*calls))


async def test_what_one_replica_acknowledged_the_other_one_reads_next(doors: list[httpx.AsyncClient]) -> None:
    path = await make(doors[0], {"n": 0})
    done = asyncio.Event()
    stale = 0

    async def keep_reading(door: httpx.AsyncClient) -> None:
        while not done.is_set():
            assert (await door.get(path)).status_code == 200

    async with asyncio.TaskGroup() as group:
        for door in doors:
            group.create_task(keep_reading(door))
        for n in range(1, PAIRS + 1):
            written = await doors[n % 2].patch(path, json={"data": {"n": n}})
            assert written.status_code == 200, written.text
            stale += (await doors[1 - n % 2].get(path)).json()["data"]["n"] != n
        done.set()
    assert stale == 0


@pytest.mark.replicas(3)
async def test_two_hundred_patches_at_once_through_three_replicas_all_survive(
    doors: list[httpx.AsyncClient],
) -> None:
    path = await make(doors[0], {})

    async def patch(n: int) -> httpx.Response:
        while True:
            answer = await doors[n % 3].patch(path, json={"data": {f"field-{n}": n}})
            if (
                answer.status_code != 409
            ):  # on a slow machine some are told to come again, and nothing changed
                return answer

    assert await statuses([patch(n) for n in range(200)]) == {200: 200}
    for door in doors:
        found = (await door.get(path)).json()
        assert found["version"] == 201
        assert found["data"] == {f"field-{n}": n for n in range(200)}


@pytest.mark.replicas(3)
async def test_of_a_hundred_who_name_one_version_one_wins_and_the_others_learn_the_next(
    doors: list[httpx.AsyncClient],
) -> None:
    path = await make(doors[0], {})
    answers = await asyncio.gather(
        *(doors[n % 3].put(path, json={"data": {"n": n}, "version": 1}) for n in range(100))
    )
    assert Counter(answer.status_code for answer in answers) == {200: 1, 409: 99}
    for answer in answers:
        if answer.status_code == 409:
            assert (answer.json()["code"], answer.json()["current_version"]) == ("version_conflict", 2)


@pytest.mark.replicas(3)
async def test_a_hundred_and_fifty_sessions_at_once_become_exactly_a_hundred(
    doors: list[httpx.AsyncClient],
) -> None:
    calls = [doors[n % 3].post("/sessions", json={"type": "cart", "data": {"n": n}}) for n in range(150)]
    assert await statuses(calls) == {201: 100, 422: 50}
    page = (await doors[0].get("/sessions", params={"limit": 100})).json()
    assert (len(page["items"]), page["next_cursor"]) == (100, None)


async def test_preferences_posted_through_both_at_once_are_one(doors: list[httpx.AsyncClient]) -> None:
    body = {"type": "preferences", "data": {"theme": "dark"}}
    calls = [doors[n % 2].post("/sessions", json=body) for n in range(20)]
    assert await statuses(calls) == {201: 1, 200: 19}


async def test_a_deleted_session_stays_deleted_under_reads_that_extend_and_patches(
    doors: list[httpx.AsyncClient],
) -> None:
    async def race(path: str) -> None:
        deleted = asyncio.Event()

        async def keep_using(door: httpx.AsyncClient) -> None:
            last_round = False
            while not last_round:
                last_round = deleted.is_set()
                read, patch = await asyncio.gather(door.get(path), door.patch(path, json={"data": {"x": 1}}))
                if last_round:
                    assert (read.status_code, patch.status_code) == (404, 404)
                assert {read.status_code, patch.status_code} <= {200, 404}

        async with asyncio.TaskGroup() as group:
            for door in doors:
                group.create_task(keep_using(door))
            await asyncio.sleep(random.uniform(0, 0.03))  # noqa: S311  # spreads the races
            assert (await random.choice(doors).delete(path)).status_code == 204  # noqa: S311  # any of them
            deleted.set()
        for door in doors:
            assert (await door.get(path)).status_code == 404

    for _ in range(ROUNDS):
        await race(await make(doors[0], {}, ttl_seconds=10))


async def test_a_replica_killed_in_the_middle_of_its_writes_leaves_nothing_stale(
    doors: list[httpx.AsyncClient], replica_processes: list[Replica], kit: StateKit
) -> None:
    """Whatever became of its last write: the record and what is read through the other agree."""
    paths = [await make(doors[0], {"n": 0}) for _ in range(8)]

    async def keep_writing(path: str) -> None:
        with contextlib.suppress(httpx.TransportError):
            for n in range(1, 10_000):
                await doors[0].patch(path, json={"data": {"n": n}})
                await doors[1].get(path)

    async with asyncio.TaskGroup() as group:
        for path in paths:
            group.create_task(keep_writing(path))
        await asyncio.sleep(0.5)
        replica_processes[0].kill()
    rows = kit.mongo.collection("sessions")
    for path in paths:
        row = await rows.find_one({"_id": path.rpartition("/")[2]})
        assert row is not None
        for _ in range(3):
            found = (await doors[1].get(path)).json()
            assert found["version"] == row["version"]
        patched = (await doors[1].patch(path, json={"data": {"after": True}})).json()
        assert patched["version"] == row["version"] + 1
        assert (await doors[1].get(path)).json() == patched
