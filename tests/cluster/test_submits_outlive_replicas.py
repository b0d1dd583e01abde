"""Drafts that are submitted while replicas are killed: each becomes one booking, with all that follows."""

import asyncio
import random
import secrets
import signal
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.cluster.counts import full, show
from tests.cluster.wire import Broken
from tests.cluster.world import API, WHOLE_TIMEOUT_S, Person, World, expect, in_parallel, send_signal, until

KILLS = full(60, 6)
SUBMITS_A_KILL = full(34, 20)
AT_ONCE = 10
DRAFTS_A_PERSON = 90
REPEATED = {409, 502, 503, 504}


def form(reference: str) -> dict[str, Any]:
    place = {
        "contact_name": "Ines Olsen",
        "phone": "+4940428540",
        "line1": "Kai 1",
        "city": "Hamburg",
        "postal_code": "20457",
        "country": "DE",
        "location": {"lat": 53.5, "lon": 10.0},
    }
    return {
        "pickup": place,
        "delivery": {**place, "location": {"lat": 51.9, "lon": 4.5}},
        "cargo": {"description": "Machine parts", "weight_kg": 8400, "pieces": 12},
        "equipment": "dry_van",
        "pickup_at": (datetime.now(UTC) + timedelta(days=5)).isoformat(),
        "reference": reference,
    }


async def begin(world: World, person: Person) -> str:
    """Begin a whole draft and return its id."""
    headers = {"Idempotency-Key": secrets.token_hex()}
    body = {"data": form(secrets.token_hex(8))}
    details: dict[str, Any] = {"token": person.token, "body": body, "headers": headers}
    draft_id: str = expect(201, await world.persist("POST", f"{API}/bookings/drafts", **details))["id"]
    return draft_id


class Submitter:
    """Submits with a key until an answer comes, as a careful client would; counts what came in between."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.seen: Counter[str] = Counter()
        self.booked: dict[str, str] = {}
        """Booking by draft."""

    async def books_another(self) -> None:
        """Return once one more draft is booked."""
        before = len(self.booked)

        async def booked() -> bool:
            return len(self.booked) > before

        await until(booked, timeout_s=WHOLE_TIMEOUT_S, poll_s=0.002)

    async def submit(self, person: Person, draft_id: str) -> None:
        await asyncio.sleep(random.uniform(0, 0.1))  # noqa: S311  # spreads what the kill meets
        path = f"{API}/bookings/drafts/{draft_id}/submit"
        details: dict[str, Any] = {"token": person.token, "headers": {"Idempotency-Key": secrets.token_hex()}}
        async with asyncio.timeout(WHOLE_TIMEOUT_S):
            while draft_id not in self.booked:
                try:
                    reply = await self._world.anywhere().ask("POST", path, **details)
                except Broken:
                    self.seen["cut off"] += 1
                else:
                    if reply.status not in REPEATED:
                        self.booked[draft_id] = expect(201, reply)["id"]
                        replayed = "idempotent-replayed" in reply.headers
                        self.seen["replayed" if replayed else "first"] += 1
                        return
                    self.seen[reply.code or str(reply.status)] += 1
                await asyncio.sleep(0.05)


@pytest.mark.timeout(1800)
async def test_submits_with_replicas_dying_under_them_make_one_booking_each_and_leave_no_draft(
    world: World,
) -> None:
    submits = KILLS * SUBMITS_A_KILL
    people = await world.register(-(-submits // DRAFTS_A_PERSON))
    submitter = Submitter(world)
    for kill in range(KILLS):
        owners = [people[(kill * SUBMITS_A_KILL + n) // DRAFTS_A_PERSON] for n in range(SUBMITS_A_KILL)]
        drafts = await in_parallel((begin(world, person) for person in owners), at_once=AT_ONCE)
        name = sorted(world.replicas)[kill % len(world.replicas)]
        pid = await world.pid(name)
        batch = asyncio.create_task(
            in_parallel(
                (submitter.submit(*work) for work in zip(owners, drafts, strict=True)), at_once=AT_ONCE
            )
        )
        await submitter.books_another()
        send_signal(pid, signal.SIGKILL)
        await batch
        await world.whole()
    show(f"{submits} submits, {KILLS} kills: {dict(submitter.seen)}")
    assert len(set(submitter.booked.values())) == submits
    await everything_followed(world, people, submitter.booked)


async def everything_followed(world: World, people: list[Person], booked: dict[str, str]) -> None:
    theirs = {"user_id": {"$in": [person.id for person in people]}}
    async with world.mongo() as database:

        async def nothing_is_left() -> bool:
            drafts = database["sessions"].count_documents({**theirs, "type": "booking_draft"})
            unfinished = database["jobs"].count_documents({**theirs, "state": {"$ne": "completed"}})
            relayed = sum(len(row["outbox"]) for row in database["bookings"].find(theirs, {"outbox": 1}))
            return drafts == unfinished == relayed == 0

        await until(nothing_is_left, timeout_s=120, poll_s=0.5)
        bookings = list(database["bookings"].find(theirs))
        jobs = Counter(row["payload"]["booking_id"] for row in database["jobs"].find(theirs))
    assert {row["draft_id"]: row["_id"] for row in bookings} == booked
    assert len(bookings) == len(booked) == len({row["number"] for row in bookings})
    assert jobs == Counter(booked.values())
    for row in bookings:
        assert [event["status"] for event in row["events"]] == ["booked"]
