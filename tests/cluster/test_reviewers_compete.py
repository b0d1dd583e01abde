"""A crowd of reviewers works on the same applications through three replicas, some of which die."""

import asyncio
import random
import secrets
import signal
from collections import Counter
from typing import Any

import pytest

from tests.cluster.counts import full, show
from tests.cluster.reviewing import Office, apply_for, open_office, stored
from tests.cluster.wire import Broken, Connection, Door
from tests.cluster.world import API, World, send_signal

WRITERS = 100
ROUNDS = full(50, 5)
KILLS = full(10, 1)
REVIEWERS = full(1000, 100)
APPLICATIONS = full(200, 20)
"""Five reviewers for each, as many as in the whole."""
ACTS = full(12, 2)
"""Of every reviewer, one in each interval."""
INTERVAL_S = full(10, 4)
ERRORS_MAX = 0.01
BATCH = 40
CUT_OFF = "cut off"
BATCH_PATH = f"{API}/applications/batch-update"


@pytest.fixture
async def office(world: World) -> Office:
    return await open_office(world, reviewers=3)


async def decide(
    door: Door | Connection, token: str, application_id: str, **body: Any
) -> tuple[str, int | None]:
    """Decide, and return the status or the code of the answer, and the version that it tells."""
    try:
        reply = await door.ask("PUT", f"{API}/applications/{application_id}", token=token, body=body)
    except Broken:
        return CUT_OFF, None
    answer = reply.json()
    return reply.code or str(reply.status), answer.get("version") or answer.get("current_version")


async def all_at_once(world: World, office: Office, application_id: str, **body: Any) -> Counter[str]:
    """Have WRITERS name the same version of one application, through all replicas."""
    doors = world.doors
    outcomes = await asyncio.gather(
        *(
            decide(doors[n % 3], office.reviewers[n % 3], application_id, note=f"writer {n}", **body)
            for n in range(WRITERS)
        )
    )
    return Counter(outcome for outcome, _ in outcomes)


@pytest.mark.timeout(900)
async def test_of_a_hundred_writers_of_one_version_one_wins(world: World, office: Office) -> None:
    (application_id,) = await apply_for(world, office, 1)
    for version in range(1, ROUNDS + 1):
        seen = await all_at_once(world, office, application_id, status="pending", version=version)
        assert seen == {"200": 1, "version_conflict": WRITERS - 1}, version
    row = (await stored(world, [application_id]))[application_id]
    assert row["version"] == ROUNDS + 1


@pytest.mark.timeout(900)
async def test_a_replica_that_is_killed_in_the_race_lets_no_second_one_win_and_no_batch_be_half_done(
    world: World, office: Office
) -> None:
    tally: Counter[str] = Counter()
    for kill in range(KILLS):
        raced, *batch = await apply_for(world, office, 1 + BATCH)
        name, door = sorted(world.replicas.items())[kill % 3]
        pid = await world.pid(name)
        key = secrets.token_hex()
        race = asyncio.create_task(all_at_once(world, office, raced, status="in_review", version=1))
        batches = [
            asyncio.create_task(send_batch(place, office, batch, key)) for place in (door, world.nginx)
        ]
        await asyncio.sleep(random.uniform(0.02, 0.2))  # noqa: S311  # somewhere in the middle of it
        send_signal(pid, signal.SIGKILL)
        seen = await race
        tally += seen + Counter(f"batch: {each}" for each in await asyncio.gather(*batches))
        assert set(seen) <= {"200", "version_conflict", CUT_OFF}
        row = (await stored(world, [raced]))[raced]
        assert seen["200"] <= 1
        assert row["version"] == 2 or (seen["200"] == 0 and seen[CUT_OFF]), seen
        await batch_is_finished(world, office, batch, key)
        await world.is_back(name, instead_of=pid)
        await world.whole()
    show(f"{KILLS} kills: {dict(tally)}")


async def batch_is_finished(world: World, office: Office, ids: list[str], key: str) -> None:
    """Repeat it until it is answered: all were decided, each once, whatever the dead one had got done."""
    answer = await world.persist("POST", BATCH_PATH, **batch_details(office, ids, key))
    assert answer.status == 200, str(answer)
    results = [{"id": each, "result": "updated", "version": 2} for each in ids]
    assert answer.json()["results"] == results
    assert {row["version"] for row in (await stored(world, ids)).values()} == {2}


async def send_batch(door: Door, office: Office, ids: list[str], key: str) -> str:
    try:
        reply = await door.ask("POST", BATCH_PATH, **batch_details(office, ids, key))
    except Broken:
        return CUT_OFF
    return reply.code or str(reply.status)


def batch_details(office: Office, ids: list[str], key: str) -> dict[str, Any]:
    body = {"application_ids": ids, "status": "in_review", "note": "Monday's"}
    return {"token": office.reviewers[0], "body": body, "headers": {"Idempotency-Key": key}}


class Reviewer:
    """One connection, kept open. Reads an application of the pile and adds a note to it, every INTERVAL_S."""

    def __init__(self, url: str, token: str, pile: list[str]) -> None:
        self._connection = Connection(url)
        self._token = token
        self._pile = pile
        self.seen: Counter[str] = Counter()
        self.accepted: set[str] = set()
        self.unknown: set[str] = set()

    async def work(self) -> None:
        await asyncio.sleep(random.uniform(0, INTERVAL_S))  # noqa: S311  # nobody keeps step
        loop = asyncio.get_running_loop()
        begins_s = loop.time()
        for act in range(ACTS):
            await asyncio.sleep(begins_s + act * INTERVAL_S - loop.time())
            await self._act(random.choice(self._pile))  # noqa: S311  # spreads them
        await self._connection.close()

    async def _act(self, application_id: str) -> None:
        path, note = f"{API}/applications/{application_id}", secrets.token_hex()
        try:
            reply = await self._connection.ask("GET", path, token=self._token)
        except Broken:
            self.seen[CUT_OFF] += 1
            return
        self.seen["read" if reply.status == 200 else reply.code] += 1
        if reply.status == 200:
            found = reply.json()
            body = {"status": found["status"], "version": found["version"], "note": note}
            outcome, _ = await decide(self._connection, self._token, application_id, **body)
            self.seen[outcome] += 1
            if outcome == "200":
                self.accepted.add(note)
            elif outcome != "version_conflict":
                self.unknown.add(note)


@pytest.mark.timeout(900)
async def test_every_decision_that_a_crowd_was_told_is_taken_is_in_the_history_once(world: World) -> None:
    office = await open_office(world, reviewers=REVIEWERS)
    pile = await apply_for(world, office, APPLICATIONS)
    crowd = [Reviewer(world.nginx.url, token, pile) for token in office.reviewers]
    working = asyncio.gather(*(reviewer.work() for reviewer in crowd))
    await asyncio.sleep(INTERVAL_S)  # all are connected
    name = min(world.replicas)
    send_signal(await world.pid(name), signal.SIGKILL)
    await working
    seen = sum((reviewer.seen for reviewer in crowd), Counter[str]())
    accepted = [note for reviewer in crowd for note in reviewer.accepted]
    unknown = {note for reviewer in crowd for note in reviewer.unknown}
    show(f"{REVIEWERS} reviewers, {APPLICATIONS} applications, one kill: {dict(seen)}")
    rows = await stored(world, pile)
    notes = Counter(event["note"] for row in rows.values() for event in row["history"] if event["note"])
    assert all(notes[note] == 1 for note in accepted), "an accepted decision is missing, or there twice"
    assert notes.keys() - set(accepted) <= unknown, "a decision that was refused is there"
    assert set(notes.values()) == {1}
    errors = sum(seen.values()) - seen["read"] - seen["200"] - seen["version_conflict"]
    assert errors <= max(1, ERRORS_MAX * sum(seen.values())), seen
