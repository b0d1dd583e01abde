"""MongoDB is the record: frozen or killed, nothing that was acknowledged is lost, and nothing hangs."""

import asyncio
import signal
import time

import pytest

from tests.cluster.counts import full
from tests.cluster.kept import Kept, assert_seen_everywhere, make, make_many, stored
from tests.cluster.wire import Broken, Reply
from tests.cluster.world import World, everyone_ready, expect, readiness, until

SESSIONS = full(100, 10)
NGINX_TIMEOUT_S = 6.0


@pytest.mark.timeout(300)
async def test_a_frozen_mongodb_refuses_writes_in_time_and_loses_nothing_when_it_goes_on(world: World) -> None:
    sessions = await make_many(world, world.nginx, SESSIONS)
    attempted: dict[str, list[dict[str, object]]] = {kept.id: [kept.data] for kept in sessions}
    slowest_s = 0.0
    hot = 0

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

    async with world.frozen("mongo"):
        await asyncio.gather(*(write(kept, 1) for kept in sessions))

        async def noticed() -> bool:
            return all([await readiness(door) == (503, "fail") for door in world.places])

        noticed_s = await until(noticed)
        for door in world.places:
            expect(200, await door.ask("GET", "/health"))
            ready = expect(503, await door.ask("GET", "/ready"))
            assert (ready["checks"]["mongo"]["status"], ready["checks"]["redis"]["status"]) == ("fail", "pass")
        for kept in sessions:
            await write(kept, 2)
            reply = await timed("GET", kept)
            assert reply.status in {200, 503}, str(reply)
            if reply.status == 200:
                assert reply.json()["data"] in attempted[kept.id]
                hot += 1
    recovered_s = await until(lambda: everyone_ready(world), timeout_s=60)
    print(
        f"\n/ready said so after {noticed_s:.1f} s; slowest answer {slowest_s:.2f} s; {hot} of {len(sessions)} reads "
        f"were hot; well again {recovered_s:.1f} s after it went on"
    )
    assert slowest_s < NGINX_TIMEOUT_S
    record = await stored(world, sessions)
    for kept in sessions:
        assert record[kept.id]["data"] in attempted[kept.id], "neither what was acknowledged nor what was tried"
        kept.data = record[kept.id]["data"]
    await assert_seen_everywhere(world, sessions)
    await make_many(world, world.nginx, 3)


@pytest.mark.timeout(600)
async def test_every_acknowledged_write_is_there_after_mongodb_was_killed_under_writes(world: World) -> None:
    owners = await world.register(8)
    sessions = [await make(world.nginx, owner, {"n": 0}) for owner in owners]
    stop = asyncio.Event()
    made: list[Kept] = []
    refused = 0

    async def keep_writing(kept: Kept) -> None:
        """One writer a session, so the record may be at most one write ahead of what was acknowledged."""
        nonlocal refused
        tried = kept.data["n"]
        while not stop.is_set():
            tried += 1
            body = {"data": {"n": tried}}
            try:
                reply = await world.nginx.ask("PATCH", kept.path, token=kept.owner.token, body=body)
            except Broken as broken:
                raise AssertionError("a replica or Nginx broke when only MongoDB did") from broken
            assert reply.status in {200, 503}, str(reply)
            if reply.status == 200:
                assert reply.json()["data"]["n"] == tried
                kept.data = {"n": tried}
            else:
                refused += 1
                assert int(reply.headers["retry-after"]) > 0
                await asyncio.sleep(0.05)

    async def keep_making(kept: Kept) -> None:
        body = {"type": "cart", "data": {"of": kept.id}, "ttl_seconds": 3600}
        for _ in range(90):
            if stop.is_set():
                break
            reply = await world.nginx.ask("POST", "/api/v1/sessions", token=kept.owner.token, body=body)
            assert reply.status in {201, 503}, str(reply)
            if reply.status == 201:
                made.append(Kept(reply.json()["id"], kept.owner, body["data"]))
            await asyncio.sleep(0.1)

    async with asyncio.TaskGroup() as group:
        for kept in sessions:
            group.create_task(keep_writing(kept))
            group.create_task(keep_making(kept))
        for _ in range(full(5, 1)):
            await asyncio.sleep(1.0)
            killed = await world.send("mongo", signal.SIGKILL)

            async def restarted(killed: int = killed) -> bool:
                return (await world.status())["stores"]["mongo"]["pid"] not in {None, killed}

            back_s = await until(restarted, timeout_s=90)
            well_s = await until(lambda: everyone_ready(world), timeout_s=90)
            print(f"\nmongo was back after {back_s:.1f} s, everybody well {well_s:.1f} s later", end="")
        await asyncio.sleep(1.0)
        stop.set()
    acknowledged = sum(kept.data["n"] for kept in sessions)
    print(f"\n{acknowledged} changes and {len(made)} new sessions acknowledged, {refused} refused")
    record = await stored(world, [*sessions, *made])
    for kept in sessions:
        assert record[kept.id]["data"]["n"] >= kept.data["n"], "an acknowledged change is gone"
        kept.data = record[kept.id]["data"]
    assert {kept.id for kept in made} <= set(record), "an acknowledged session is gone"
    await assert_seen_everywhere(world, [*sessions, *made])
