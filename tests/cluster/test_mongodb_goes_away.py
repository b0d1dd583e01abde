"""MongoDB is the record: frozen or killed, nothing that was acknowledged is lost, and nothing hangs."""

import asyncio
import signal
import time
from types import TracebackType
from typing import Any, Self

import pytest

from tests.cluster.counts import full, show
from tests.cluster.kept import Kept, assert_seen_everywhere, make, make_many, stored
from tests.cluster.wire import Reply
from tests.cluster.world import API, Person, World, everyone_ready, expect, readiness, until

SESSIONS = full(100, 10)
NGINX_TIMEOUT_S = 6.0
_CARTS_A_PERSON = 90


@pytest.mark.timeout(300)
async def test_a_frozen_mongodb_refuses_writes_in_time_and_loses_nothing_when_it_goes_on(
    world: World,
) -> None:
    sessions = await make_many(world, world.nginx, SESSIONS)
    only_read = await make_many(world, world.nginx, SESSIONS)
    attempted: dict[str, list[dict[str, object]]] = {kept.id: [kept.data] for kept in sessions}
    slowest_s = 0.0

    async def timed(method: str, kept: Kept, body: object = None) -> Reply:
        nonlocal slowest_s
        began_s = time.monotonic()
        reply = await world.nginx.ask(method, kept.path, token=kept.owner.token, body=body)
        slowest_s = max(slowest_s, time.monotonic() - began_s)
        return reply

    async def write(kept: Kept, number: int) -> None:
        data = {"n": kept.data["n"], "attempt": number}
        attempted[kept.id].append(data)
        reply = await timed("PATCH", kept, {"data": data})
        assert (reply.status, reply.code) in {(503, "store_unavailable"), (200, "")}, str(reply)
        if reply.status == 200:
            kept.data = data
            attempted[kept.id] = [data]
        else:
            assert int(reply.headers["retry-after"]) > 0

    await assert_seen_everywhere(world, only_read)
    async with world.frozen("mongo"):
        await assert_seen_everywhere(world, only_read)  # what is hot goes on being served
        await asyncio.gather(*(write(kept, 1) for kept in sessions))

        async def noticed() -> bool:
            return all([await readiness(door) == (503, "fail") for door in world.places])

        noticed_s = await until(noticed)
        for door in world.places:
            expect(200, await door.ask("GET", "/health"))
            ready = expect(503, await door.ask("GET", "/ready"))
            assert (ready["checks"]["mongo"]["status"], ready["checks"]["redis"]["status"]) == (
                "fail",
                "pass",
            )
        for kept in sessions:
            await write(kept, 2)
            reply = await timed("GET", kept)
            assert reply.status in {200, 503}, str(reply)
            assert reply.status == 503 or reply.json()["data"] in attempted[kept.id]
    recovered_s = await until(lambda: everyone_ready(world), timeout_s=60)
    show(
        f"/ready said so after {noticed_s:.1f} s; slowest answer {slowest_s:.2f} s; "
        f"well again {recovered_s:.1f} s after it went on"
    )
    assert slowest_s < NGINX_TIMEOUT_S
    record = await stored(world, sessions)
    for kept in sessions:
        assert record[kept.id]["data"] in attempted[kept.id], (
            "neither what was acknowledged nor what was tried"
        )
        kept.data = record[kept.id]["data"]
    await assert_seen_everywhere(world, [*sessions, *only_read])
    await make_many(world, world.nginx, 3)


class SteadyWrites:
    """Keeps changing sessions and making new ones through Nginx, and knows what was acknowledged.

    Each session has one writer, so the record may be one change ahead of what was acknowledged, never behind.
    """

    def __init__(self, world: World, sessions: list[Kept]) -> None:
        """Writes go on inside `async with`."""
        self.sessions = sessions
        self.made: list[Kept] = []
        self.refused = 0
        self._world = world
        self._stopping = asyncio.Event()
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        for kept in self.sessions:
            self._group.create_task(self._keep_changing(kept))
            self._group.create_task(self._keep_making(kept.owner))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        await self._group.__aexit__(kind, error, trace)

    async def _keep_changing(self, kept: Kept) -> None:
        tried = kept.data["n"]
        while not self._stopping.is_set():
            tried += 1
            reply = await self._write("PATCH", kept.path, kept.owner, {"data": {"n": tried}})
            if reply:
                kept.data = {"n": tried}

    async def _keep_making(self, owner: Person) -> None:
        body = {"type": "cart", "data": {"of": owner.id}}
        for _ in range(_CARTS_A_PERSON):
            if self._stopping.is_set():
                break
            reply = await self._write("POST", f"{API}/sessions", owner, body)
            if reply:
                self.made.append(Kept(reply["id"], owner, reply["data"]))
            await asyncio.sleep(0.1)

    async def _write(self, method: str, path: str, owner: Person, body: Any) -> Any:
        """Return the answer to a write, nothing if it was refused as it may be while MongoDB is gone."""
        reply = await self._world.nginx.ask(method, path, token=owner.token, body=body)
        if reply.status in {200, 201}:
            return reply.json()
        assert (reply.status, reply.code) == (503, "store_unavailable"), str(reply)
        assert int(reply.headers["retry-after"]) > 0
        self.refused += 1
        await asyncio.sleep(0.05)
        return None


@pytest.mark.timeout(600)
async def test_every_acknowledged_write_is_there_after_mongodb_was_killed_under_writes(world: World) -> None:
    sessions = [await make(world.nginx, owner, {"n": 0}) for owner in await world.register(8)]
    async with SteadyWrites(world, sessions) as writes:
        for _ in range(full(5, 1)):
            await asyncio.sleep(1.0)
            killed = await world.send("mongo", signal.SIGKILL)

            async def restarted(killed: int = killed) -> bool:
                return (await world.status())["stores"]["mongo"]["pid"] not in {None, killed}

            back_s = await until(restarted, timeout_s=90)
            well_s = await until(lambda: everyone_ready(world), timeout_s=90)
            show(f"mongo was back after {back_s:.1f} s, everybody well {well_s:.1f} s later")
        await asyncio.sleep(1.0)
    changed = sum(kept.data["n"] for kept in sessions)
    show(f"{changed} changes and {len(writes.made)} sessions acknowledged, {writes.refused} writes refused")
    record = await stored(world, [*sessions, *writes.made])
    for kept in sessions:
        assert record[kept.id]["data"]["n"] >= kept.data["n"], "an acknowledged change is gone"
        kept.data = record[kept.id]["data"]
    assert {kept.id for kept in writes.made} <= set(record), "an acknowledged session is gone"
    await assert_seen_everywhere(world, [*sessions, *writes.made])
