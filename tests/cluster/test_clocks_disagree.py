"""Replicas on machines whose clocks are an hour off agree with the others on everything."""

import asyncio
import secrets
import sys
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.core.settings import Settings
from tests.cluster.counts import full, show
from tests.cluster.harness import Cluster
from tests.cluster.limits import GENEROUS, LIMITED
from tests.cluster.wire import Door
from tests.cluster.world import API, PASSWORD, World, expect, in_parallel
from tests.engines import Replica

HOUR_S = 3600
TTL_S = 10
SLACK = timedelta(seconds=0.5)
"""How far the clocks of MongoDB and of a replica that follows it may be apart, generously."""


class SkewedReplica(Replica):
    """A replica whose machine's clock is off."""

    def __init__(self, folder: Path, settings: Settings, *, name: str, off_by_s: int) -> None:
        super().__init__(folder, settings, name=name)
        self._off_by_s = off_by_s

    def command(self) -> tuple[str, ...]:
        return (sys.executable, "-m", "tests.cluster.skewed_replica", str(self._off_by_s))


@pytest.fixture(scope="module")
async def skewed(
    shared_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, Door]]:
    """Two more replicas on the shared cluster's stores: one an hour ahead, one an hour behind."""
    stores = shared_cluster.status()["stores"]
    settings = Settings(
        app_env="development",
        mongodb_uri=stores["mongo"]["uri"],
        redis_url=stores["redis"]["url"],
        jwt_secret=(shared_cluster.data / "secrets" / "jwt").read_text().strip(),
        **{name.lower(): limit for name, limit in GENEROUS.items()},
    )
    folder = tmp_path_factory.mktemp("skewed")
    replicas = [
        SkewedReplica(folder / name, settings, name=name, off_by_s=off_by_s)
        for name, off_by_s in (("ahead", HOUR_S), ("behind", -HOUR_S))
    ]
    doors = {replica.name: Door(replica.url) for replica in replicas}
    try:
        for replica in replicas:
            replica.spawn()
        for replica in replicas:
            replica.wait_until_ready()
        yield doors
    finally:
        for door in doors.values():
            await door.close()
        for replica in replicas:
            replica.stop()


async def test_a_token_minted_on_any_clock_is_accepted_on_every_other(
    world: World, skewed: dict[str, Door]
) -> None:
    person = await world.person()
    places = {**skewed, "right": world.nginx}
    body = {"email": person.email, "password": PASSWORD}
    for minted_by, mint in places.items():
        login = expect(200, await mint.ask("POST", f"{API}/auth/login", body=body))
        for used_at, door in places.items():
            reply = await door.ask("GET", f"{API}/auth/me", token=login["access_token"])
            assert reply.status == 200, f"minted {minted_by}, used {used_at}: {reply}"
        refreshed_by = secrets.choice(list(places.values()))
        refresh = {"refresh_token": login["refresh_token"]}
        fresh = expect(200, await refreshed_by.ask("POST", f"{API}/auth/refresh", body=refresh))
        expect(200, await world.nginx.ask("GET", f"{API}/auth/me", token=fresh["access_token"]))


async def test_limits_are_exact_over_replicas_whose_clocks_are_hours_apart(
    world: World, skewed: dict[str, Door]
) -> None:
    admin = await world.person()
    body = {"name": "counted", "tier": "premium"}
    key = expect(201, await world.nginx.ask("POST", f"{API}/api-keys", token=admin.token, body=body))["key"]
    doors = [*skewed.values(), *world.places]
    count = full(1000, 100)
    headers = {"X-API-Key": key}
    work = (doors[n % len(doors)].ask("GET", f"{API}/auth/me", headers=headers) for n in range(count))
    replies = await in_parallel(work, at_once=count)
    assert Counter(reply.status for reply in replies) == {200: LIMITED, 429: count - LIMITED}
    for reply in replies:
        if reply.status == 429:
            assert 0 < int(reply.headers["retry-after"]) <= HOUR_S


async def test_sessions_expire_at_the_right_moment_whichever_clock_made_them(
    world: World, skewed: dict[str, Door]
) -> None:
    """Every read is judged by the time at which it was certainly sent, and certainly answered."""
    person = await world.person()
    makers = {**skewed, "right": world.nginx}
    made = {}
    for name, door in makers.items():
        began = datetime.now(UTC)
        body = {"type": "temp_data", "data": {"made": name}, "ttl_seconds": TTL_S}
        session = expect(201, await door.ask("POST", f"{API}/sessions", token=person.token, body=body))
        expires_at = datetime.fromisoformat(session["expires_at"])
        lifetime = timedelta(seconds=TTL_S)
        assert began - SLACK <= expires_at - lifetime <= datetime.now(UTC) + SLACK, f"made {name}"
        made[session["id"]] = expires_at
    living = gone = 0
    while any(datetime.now(UTC) < expires_at + 2 * SLACK for expires_at in made.values()):
        for session_id, expires_at in made.items():
            name, door = secrets.choice(list(makers.items()))
            sent = datetime.now(UTC)
            path = f"{API}/sessions/{session_id}?extend=false"
            reply = await door.ask("GET", path, token=person.token)
            answered = datetime.now(UTC)
            if answered < expires_at - SLACK:
                assert reply.status == 200, f"read {name}, {expires_at - answered} before its end: {reply}"
                living += 1
            if sent > expires_at + SLACK:
                assert reply.status == 404, f"read {name}, {sent - expires_at} after its end: {reply}"
                gone += 1
        await asyncio.sleep(0.05)
    show(f"{living} reads before the end, {gone} after it")
    assert living
    assert gone
