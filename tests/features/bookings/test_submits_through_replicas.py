"""Drafts and submits over HTTP through three real replicas: separate processes, the same stores."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from app.state.kit import StateKit
from tests.features.bookings.shipments import shipment
from tests.state.people import Person, new_person

pytestmark = [
    pytest.mark.settings(limit_standard="1000000/minute", limit_booking="1000000/hour"),
    pytest.mark.replicas(3),
]


@pytest.fixture
async def me(kit: StateKit) -> Person:
    return await new_person(kit, role="shipper")


@pytest.fixture
async def doors(replicas: list[str], me: Person) -> AsyncIterator[list[httpx.AsyncClient]]:
    """A client for each replica, logged in."""
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                httpx.AsyncClient(base_url=f"{url}/api/v1", headers=me.headers, timeout=30)
            )
            for url in replicas
        ]


async def test_through_three_replicas_nothing_is_lost_and_nothing_doubled(
    doors: list[httpx.AsyncClient],
) -> None:
    """One test for all: three processes take longer to start than this does."""
    draft = (await doors[0].post("/bookings/drafts", json={"data": shipment()})).json()
    path = f"/bookings/drafts/{draft['id']}"
    await saves_shuffled_and_partly_twice(doors, path)
    await a_hundred_submits(doors, path)
    await many_bookings_under_one_key(doors)


async def saves_shuffled_and_partly_twice(doors: list[httpx.AsyncClient], path: str) -> None:
    typed: dict[str, Any] = {}
    saves = []
    for seq in range(200):
        typed = {**typed, "notes": f"n{seq}", "reference": f"r{seq - seq % 7}"}
        saves.append({"data": typed, "step": seq % 5, "client_id": "phone", "seq": seq})
    sent = saves + random.sample(saves, 60)
    random.shuffle(sent)
    answers = await asyncio.gather(*(doors[n % 3].patch(path, json=save) for n, save in enumerate(sent)))
    assert Counter(answer.status_code for answer in answers) == {200: 260}
    applied = sum(answer.json()["applied"] for answer in answers)
    for door in doors:
        found = (await door.get(path)).json()
        assert {name: found["data"][name] for name in typed} == typed
        assert (found["step"], found["version"]) == (199 % 5, 1 + applied)


async def a_hundred_submits(doors: list[httpx.AsyncClient], path: str) -> None:
    key = {"Idempotency-Key": "the-only-one"}
    answers = await asyncio.gather(
        *(doors[n % 3].post(f"{path}/submit", headers=key if n % 2 else {}) for n in range(100))
    )
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    for door in doors:
        again = await door.post(f"{path}/submit", headers=key)
        assert (again.status_code, again.content) == (201, answers[0].content)
        items = (await door.get("/bookings")).json()["items"]
        assert [item["id"] for item in items] == [answers[0].json()["id"]]
        assert (await door.get(path)).status_code == 404


async def many_bookings_under_one_key(doors: list[httpx.AsyncClient]) -> None:
    body, key = shipment(), {"Idempotency-Key": "another"}
    answers = await asyncio.gather(
        *(doors[n % 3].post("/bookings", json=body, headers=key) for n in range(60))
    )
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert len((await doors[1].get("/bookings")).json()["items"]) == 2
