"""Sessions belong to the cluster: made on one replica, they go on through every other one, dead or alive."""

import asyncio

import pytest

from tests.cluster.counts import full, show
from tests.cluster.kept import Kept, assert_gone_everywhere, assert_seen_everywhere, make_many, stored
from tests.cluster.wire import Door, Reply
from tests.cluster.world import World, expect, in_parallel

SESSIONS = full(1000, 100)
DEATHS = full(15, 3)
PAIRS = full(5000, 500)
RACES = full(300, 30)
FIELDS = 50
VISITORS = 6
"""Not as many as the machine bears: it has replicas to start meanwhile."""


@pytest.mark.timeout(900)
async def test_sessions_made_on_one_replica_go_on_through_the_others_while_replicas_are_killed(
    world: World,
) -> None:
    sessions = await make_many(world, world.doors[0], SESSIONS, ttl_s=120)
    everyone_died = asyncio.Event()

    async def kill_one_after_another() -> None:
        for death in range(DEATHS):
            name = sorted(world.replicas)[death % len(world.replicas)]
            await world.kill_replica(name)
            await world.is_back(name)
        everyone_died.set()

    async def visit(kept: Kept) -> None:
        """Change it through one place, then read it through another, extending it."""
        change = {f"field-{kept.visits % 5}": kept.visits}
        changed = await world.persist(
            "PATCH",
            kept.path,
            first=world.anywhere(),
            token=kept.owner.token,
            body={"data": change},
        )
        expect(200, changed)
        kept.data |= change
        read = expect(200, await world.persist("GET", f"{kept.path}?extend=true", token=kept.owner.token))
        assert read["data"] == kept.data, "a read came back with something older than what was acknowledged"
        kept.visits += 1

    async def go_round(mine: list[Kept]) -> None:
        while not (everyone_died.is_set() and all(kept.visits for kept in mine)):
            for kept in mine:
                await visit(kept)

    async with asyncio.TaskGroup() as group:
        group.create_task(kill_one_after_another())
        for n in range(VISITORS):
            group.create_task(go_round(sessions[n::VISITORS]))

    visits = sum(kept.visits for kept in sessions)
    show(f"{len(sessions)} sessions, {DEATHS} replicas killed, {visits} changes each read back elsewhere")
    await world.whole()
    await assert_seen_everywhere(world, sessions)


@pytest.mark.timeout(600)
async def test_a_write_acknowledged_by_one_replica_is_what_every_other_one_reads_next(world: World) -> None:
    sessions = await make_many(world, world.nginx, 30)
    done = asyncio.Event()
    stale: list[str] = []
    reads = 0

    async def read(kept: Kept, door: Door) -> None:
        """A value that was acknowledged before the read began may not be missing from it."""
        nonlocal reads
        acknowledged = kept.data["n"]
        found = expect(200, await door.ask("GET", kept.path, token=kept.owner.token))["data"]["n"]
        reads += 1
        if found < acknowledged:
            stale.append(f"{door.url} said {found} after {acknowledged} was acknowledged")

    async def keep_reading(kept: Kept) -> None:
        """Readers in between are what puts hot copies back at the wrong moment, if anything does."""
        while not done.is_set():
            await read(kept, world.anywhere())

    async def write_and_read(kept: Kept, count: int) -> None:
        for _ in range(count):
            writer, reader = world.two_places()
            data = {"n": kept.data["n"] + 1}
            expect(200, await writer.ask("PATCH", kept.path, token=kept.owner.token, body={"data": data}))
            kept.data = data
            await read(kept, reader)

    async with asyncio.TaskGroup() as group:
        readers = [group.create_task(keep_reading(kept)) for kept in sessions[:10]]
        await in_parallel(
            (write_and_read(kept, PAIRS // len(sessions)) for kept in sessions), at_once=len(sessions)
        )
        done.set()
        await asyncio.wait(readers)
    show(f"{PAIRS} writes, {reads} reads, {len(stale)} stale")
    assert not stale


async def test_fifty_fields_changed_at_once_over_three_replicas_all_survive(world: World) -> None:
    kept = (await make_many(world, world.nginx, 1))[0]

    async def change(n: int) -> Reply:
        body = {"data": {f"field-{n}": n}}
        return await world.doors[n % 3].ask("PATCH", kept.path, token=kept.owner.token, body=body)

    replies = await asyncio.gather(*(change(n) for n in range(FIELDS)))
    assert [reply.status for reply in replies] == [200] * FIELDS
    for door in world.places:
        read = expect(200, await door.ask("GET", kept.path, token=kept.owner.token))
        assert read["data"] == {"n": 0} | {f"field-{n}": n for n in range(FIELDS)}
        assert read["version"] == 1 + FIELDS


async def test_reading_through_any_replica_extends_a_session_once_a_tenth_of_its_life_is_spent(
    world: World,
) -> None:
    sessions = await make_many(world, world.doors[0], 12, ttl_s=60)
    before = {
        kept.id: row["expires_at"] for kept in sessions for row in [(await stored(world, [kept]))[kept.id]]
    }
    await asyncio.sleep(6.2)
    for kept in sessions[:6]:
        path = f"{kept.path}?extend=false"
        expect(200, await world.anywhere().ask("GET", path, token=kept.owner.token))
    unextended = await stored(world, sessions)
    assert {row["expires_at"] for row in unextended.values()} == set(before.values())
    for kept in sessions:
        read = await world.anywhere().ask("GET", kept.path, token=kept.owner.token)
        assert expect(200, read)["version"] == 1
    extended = await stored(world, sessions)
    assert all(extended[kept.id]["expires_at"] > before[kept.id] for kept in sessions)


async def test_a_deleted_session_is_not_resurrected_by_the_extends_and_patches_it_races_with(
    world: World,
) -> None:
    sessions = await make_many(world, world.nginx, RACES, ttl_s=60)
    await asyncio.sleep(6.2)  # a tenth of its life: from now on every read may extend
    after_deletion: list[str] = []

    async def race(kept: Kept) -> None:
        deleted = asyncio.Event()

        async def keep_using(door: Door, n: int) -> None:
            gone_before_this = False
            while not gone_before_this:
                gone_before_this = deleted.is_set()
                read = await door.ask("GET", f"{kept.path}?extend=true", token=kept.owner.token)
                patch = await door.ask(
                    "PATCH", kept.path, token=kept.owner.token, body={"data": {f"by-{n}": 1}}
                )
                assert read.status in {200, 404}, str(read)
                assert patch.status in {200, 404, 409}, str(patch)
                if gone_before_this and (read.status, patch.status) != (404, 404):
                    after_deletion.append(f"{kept.id}: read {read.status}, patch {patch.status}")

        async def delete() -> None:
            await asyncio.sleep(0.002 * (kept.data["n"] % 15))
            expect(204, await world.anywhere().ask("DELETE", kept.path, token=kept.owner.token))
            deleted.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(delete())
            for n, door in enumerate(world.places):
                group.create_task(keep_using(door, n))

    await in_parallel((race(kept) for kept in sessions), at_once=4)
    assert not after_deletion
    await assert_gone_everywhere(world, sessions)
    assert await stored(world, sessions) == {}
    show(f"{len(sessions)} sessions deleted under reads and writes, none came back")
