"""Sessions as their owners know them: what was acknowledged, to be compared with what is found later."""

import json
from dataclasses import dataclass
from typing import Any

from tests.cluster.wire import Door
from tests.cluster.world import API, Person, World, expect, in_parallel

_PER_OWNER = 100
_AT_ONCE = 16


@dataclass
class Kept:
    """One session and the data last acknowledged."""

    id: str
    owner: Person
    data: dict[str, Any]
    visits: int = 0

    @property
    def path(self) -> str:
        """Where it lives."""
        return f"{API}/sessions/{self.id}"


async def make(door: Door, owner: Person, data: dict[str, Any], *, ttl_s: int = 3600) -> Kept:
    """Make a session through that door."""
    body = {"type": "temp_data", "data": data, "ttl_seconds": ttl_s}
    made = expect(201, await door.ask("POST", f"{API}/sessions", token=owner.token, body=body))
    assert made["data"] == data
    return Kept(made["id"], owner, data)


async def make_many(world: World, door: Door, count: int, *, ttl_s: int = 3600) -> list[Kept]:
    """Make that many sessions through one door, with as many owners as that takes."""
    owners = await world.register(-(-count // _PER_OWNER))
    work = (make(door, owners[n % len(owners)], {"n": n}, ttl_s=ttl_s) for n in range(count))
    return await in_parallel(work, at_once=_AT_ONCE)


async def assert_seen_everywhere(world: World, sessions: list[Kept]) -> None:
    """Read all of them through every place there is and compare."""

    async def look(door: Door, kept: Kept) -> None:
        read = expect(200, await door.ask("GET", kept.path, token=kept.owner.token))
        assert read["data"] == kept.data, f"{door.url}, {kept.id}"

    for door in world.places:
        await in_parallel((look(door, kept) for kept in sessions), at_once=_AT_ONCE)


async def assert_gone_everywhere(world: World, sessions: list[Kept]) -> None:
    """Ask every place for all of them; none may know one."""

    async def look(door: Door, kept: Kept) -> None:
        expect(404, await door.ask("GET", kept.path, token=kept.owner.token))

    for door in world.places:
        await in_parallel((look(door, kept) for kept in sessions), at_once=_AT_ONCE)


async def stored(world: World, sessions: list[Kept]) -> dict[str, dict[str, Any]]:
    """Return what MongoDB itself holds of these sessions, by id; it keeps their data as JSON text."""
    async with world.mongo() as database:
        rows = database["sessions"].find({"_id": {"$in": [kept.id for kept in sessions]}})
        return {row["_id"]: {**row, "data": json.loads(row["data"])} for row in rows}
