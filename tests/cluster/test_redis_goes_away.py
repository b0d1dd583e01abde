"""Redis is where what is hot lives: frozen, killed or emptied, it costs time and nothing else."""

import asyncio
import signal
import time

import pytest

from tests.cluster.counts import full, show
from tests.cluster.kept import assert_gone_everywhere, assert_seen_everywhere, make_many
from tests.cluster.wire import Reply
from tests.cluster.world import (
    API,
    PASSWORD,
    World,
    everyone_ready,
    expect,
    in_parallel,
    readiness,
    until,
)

SESSIONS = full(200, 20)
NGINX_TIMEOUT_S = 6.0


async def timed(world: World, method: str, path: str, **details: object) -> tuple[float, Reply]:
    """Ask through Nginx; return the seconds it took and the answer."""
    began_s = time.monotonic()
    reply = await world.nginx.ask(method, path, **details)
    return time.monotonic() - began_s, reply


@pytest.mark.timeout(300)
async def test_a_frozen_redis_closes_the_login_and_nothing_else_and_leaves_no_stale_copy(
    world: World,
) -> None:
    sessions = await make_many(world, world.nginx, SESSIONS)
    await assert_seen_everywhere(world, sessions)  # so that every one has a hot copy
    owner = sessions[0].owner
    slowest = dict.fromkeys(("login", "read", "write"), 0.0)
    async with world.frozen("redis"):

        async def noticed() -> bool:
            return all([await readiness(door) == (200, "warn") for door in world.places])

        await until(noticed)
        for door in world.places:
            expect(200, await door.ask("GET", "/health"))
            checks = expect(200, await door.ask("GET", "/ready"))["checks"]
            assert (checks["redis"]["status"], checks["mongo"]["status"]) == ("fail", "pass")
        for _ in range(3):
            body = {"email": owner.email, "password": PASSWORD}
            took_s, reply = await timed(world, "POST", f"{API}/auth/login", body=body)
            slowest["login"] = max(slowest["login"], took_s)
            assert (reply.status, reply.code) == (503, "store_unavailable")
            assert int(reply.headers["retry-after"]) > 0
        for kept in sessions:
            data = {"n": kept.data["n"], "written": "while redis was frozen"}
            took_s, reply = await timed(
                world, "PATCH", kept.path, token=kept.owner.token, body={"data": data}
            )
            expect(200, reply)
            kept.data = data
            slowest["write"] = max(slowest["write"], took_s)
            took_s, reply = await timed(world, "GET", kept.path, token=kept.owner.token)
            assert expect(200, reply)["data"] == data
            slowest["read"] = max(slowest["read"], took_s)
        deleted, sessions = sessions[:3], sessions[3:]
        for kept in deleted:
            expect(204, await world.nginx.ask("DELETE", kept.path, token=kept.owner.token))
    await assert_seen_everywhere(world, sessions)  # at once: a copy from before must not be believed
    await assert_gone_everywhere(world, deleted)
    recovered_s = await until(lambda: everyone_ready(world))
    await assert_seen_everywhere(world, sessions)
    body = {"email": owner.email, "password": PASSWORD}
    expect(200, await world.nginx.ask("POST", f"{API}/auth/login", body=body))
    shown = ", ".join(f"{what} {seconds:.2f} s" for what, seconds in slowest.items())
    show(f"slowest while frozen: {shown}; well again {recovered_s:.1f} s after it went on")
    assert max(slowest.values()) < NGINX_TIMEOUT_S


@pytest.mark.timeout(300)
async def test_writes_under_way_while_redis_freezes_and_thaws_leave_no_stale_copy(world: World) -> None:
    """The moments of change are where a write and its copy could come apart."""
    sessions = await make_many(world, world.nginx, 12)
    stop = asyncio.Event()
    stale: list[str] = []
    writes = 0

    async def write_and_read(number: int) -> None:
        nonlocal writes
        kept = sessions[number]
        while not stop.is_set():
            writer, reader = world.two_places()
            data = {"n": kept.data["n"] + 1}
            expect(200, await writer.ask("PATCH", kept.path, token=kept.owner.token, body={"data": data}))
            kept.data = data
            writes += 1
            found = expect(200, await reader.ask("GET", kept.path, token=kept.owner.token))["data"]
            if found != data:
                stale.append(f"{reader.url}: {found} after {data} through {writer.url}")

    async with asyncio.TaskGroup() as group:
        for number in range(len(sessions)):
            group.create_task(write_and_read(number))
        for pause_s in (0.3, 1.0, 2.5) * full(4, 1):
            async with world.frozen("redis"):
                await asyncio.sleep(pause_s)
            await asyncio.sleep(1.0)
        stop.set()
    show(f"{writes} writes, {len(stale)} stale reads")
    assert not stale
    await assert_seen_everywhere(world, sessions)


@pytest.mark.timeout(300)
async def test_nobody_is_logged_out_and_nothing_is_lost_when_redis_is_killed(world: World) -> None:
    sessions = await make_many(world, world.nginx, SESSIONS)
    people = await world.register(3)
    killed = await world.send("redis", signal.SIGKILL)
    for kept in sessions:
        expect(
            200, await world.persist("PATCH", kept.path, token=kept.owner.token, body={"data": {"killed": 1}})
        )
        kept.data |= {"killed": 1}

    async def restarted() -> bool:
        return (await world.status())["stores"]["redis"]["pid"] not in {None, killed}

    back_s = await until(restarted, timeout_s=60)
    well_s = await until(lambda: everyone_ready(world))
    show(f"redis was back after {back_s:.1f} s, everybody well {well_s:.1f} s later")
    for person in [*people, *{kept.owner for kept in sessions}]:
        for door in world.places:
            expect(200, await door.ask("GET", f"{API}/auth/me", token=person.token))
    await assert_seen_everywhere(world, sessions)


@pytest.mark.timeout(300)
async def test_an_emptied_redis_revives_nobody_and_logs_nobody_out(world: World) -> None:
    living, revoked = await world.register(2)
    sessions = await make_many(world, world.nginx, SESSIONS)
    deleted, sessions = sessions[:5], sessions[5:]
    for door in world.places:
        expect(200, await door.ask("GET", f"{API}/auth/me", token=revoked.token))
    expect(204, await world.nginx.ask("POST", f"{API}/auth/logout", token=revoked.token))
    for kept in deleted:
        expect(204, await world.nginx.ask("DELETE", kept.path, token=kept.owner.token))
    for _ in range(full(20, 2)):
        async with world.redis() as store:
            assert store.flushall()
        for door in world.places:
            expect(401, await door.ask("GET", f"{API}/auth/me", token=revoked.token))
            expect(200, await door.ask("GET", f"{API}/auth/me", token=living.token))
        refresh = {"refresh_token": revoked.refresh_token}
        expect(401, await world.nginx.ask("POST", f"{API}/auth/refresh", body=refresh))
        await assert_gone_everywhere(world, deleted)
        await assert_seen_everywhere(world, sessions)


@pytest.mark.timeout(300)
async def test_emptying_redis_again_and_again_under_writes_makes_no_read_stale(world: World) -> None:
    sessions = await make_many(world, world.nginx, 8)
    stop = asyncio.Event()
    reads = 0

    async def write_and_read(number: int) -> None:
        nonlocal reads
        kept = sessions[number]
        while not stop.is_set():
            writer, reader = world.two_places()
            data = {"n": kept.data["n"] + 1}
            expect(200, await writer.ask("PATCH", kept.path, token=kept.owner.token, body={"data": data}))
            kept.data = data
            found = expect(200, await reader.ask("GET", kept.path, token=kept.owner.token))["data"]
            assert found == data
            reads += 1

    async with asyncio.TaskGroup() as group:
        for number in range(len(sessions)):
            group.create_task(write_and_read(number))
        async with world.redis() as store:
            for n in range(full(100, 10)):
                await asyncio.sleep(0.05 + 0.04 * (n % 10))
                store.flushall()
        stop.set()
    show(f"{reads} writes read back while Redis was emptied, 0 stale")
    await in_parallel((assert_seen_everywhere(world, [kept]) for kept in sessions), at_once=1)
