"""Killing, freezing, restarting and scaling replicas under load costs nobody a request."""

import asyncio
import itertools
import json
import signal
from collections.abc import Callable

import pytest

from tests.cluster.counts import full, show
from tests.cluster.load import Load, Request
from tests.cluster.nginx_log import NginxLog
from tests.cluster.wire import Reply
from tests.cluster.world import API, Person, World, expect, in_parallel, send_signal, until

KILLS = full(60, 6)
EXPOSED = 20
CONNECTIONS = 90
REQUESTS = full(20_000, 2_000)
PER_SECOND = 200
READS_PER_SECOND = 300
FROZEN_S = 10
SESSION_TYPES = ("temp_data", "cart", "user_session")


def wrong_unless(status: int, is_right: Callable[[dict[str, object]], bool]) -> Callable[[Reply], str]:
    """Return the check of a JSON answer: this status, and a body that is the right one."""

    def wrong(reply: Reply) -> str:
        if reply.status != status:
            return str(reply)
        try:
            return "" if is_right(reply.json()) else f"not what was asked for: {reply}"
        except (json.JSONDecodeError, KeyError) as error:
            return f"broken body ({error!r}): {reply}"

    return wrong


async def reads(world: World, people: list[Person]) -> list[Request]:
    """Return reads of every kind, whose answers are known: who am I, one session, a list of them."""
    requests = []
    for person in people:
        data = {"owner": person.id, "padding": "x" * 2000}
        body = {"type": "temp_data", "data": data}
        made = expect(201, await world.nginx.ask("POST", f"{API}/sessions", token=person.token, body=body))

        def is_me(body: dict, person: Person = person) -> bool:
            return body["id"] == person.id

        def is_session(body: dict, made: dict = made) -> bool:
            return (body["id"], body["data"]) == (made["id"], made["data"])

        def is_list(body: dict, made: dict = made) -> bool:
            return [item["id"] for item in body["items"]] == [made["id"]]

        one = f"{API}/sessions/{made['id']}"
        requests += [
            Request("GET", one, wrong_unless(200, is_session), person.token),
            Request("GET", f"{API}/auth/me", wrong_unless(200, is_me), person.token),
            Request("GET", one, wrong_unless(200, is_session), person.token),
            Request("GET", f"{API}/sessions?type=temp_data", wrong_unless(200, is_list), person.token),
        ]
    return requests


async def takes_its_share(load: Load, name: str) -> None:
    """Return once Nginx gives that replica a quarter of all requests: not yet, if it has just come back."""
    share = 0.0
    async with asyncio.timeout(60):
        while share < 1 / 4:
            theirs, all_in_all = load.tally.replicas[name], load.tally.answered
            await load.answered(all_in_all + len(load.tally.failures) + 3 * CONNECTIONS)
            share = (load.tally.replicas[name] - theirs) / (load.tally.answered - all_in_all)


@pytest.mark.timeout(1200)
async def test_killing_a_replica_with_reads_in_its_hands_fails_none_of_them(world: World) -> None:
    requests = await reads(world, await world.register(6))
    log_path = world.cluster.data / "logs" / "nginx.log"
    exposures: list[int] = []
    counted = kills = 0

    async def many_wait(load: Load) -> bool:
        return load.waiting(longer_than_s=0.2) >= 2 * EXPOSED

    # Not as much as the machine bears: it has replicas to start meanwhile.
    load = Load(
        world.nginx.url,
        lambda n: requests[n % len(requests)],
        connections=CONNECTIONS,
        per_second=READS_PER_SECOND,
    )
    async with load:
        while counted < KILLS and kills < 2 * KILLS:
            name, door = sorted(world.replicas.items())[kills % len(world.replicas)]
            await takes_its_share(load, name)
            pid = await world.pid(name)
            log = NginxLog(log_path)
            # It dies where it was stopped, in the middle of whatever it did, with more and more in its hands.
            send_signal(pid, signal.SIGSTOP)
            await until(lambda: many_wait(load), timeout_s=5, poll_s=0.02)
            send_signal(pid, signal.SIGKILL)
            kills += 1
            await world.is_gone(name)
            await world.is_back(name)
            cut_off = log.cut_off(door.url.removeprefix("http://"))
            exposures.append(cut_off)
            counted += cut_off >= EXPOSED
    show(
        f"{kills} kills, {counted} of them with {EXPOSED} reads or more in the replica's hands\n"
        f"cut off: {exposures}\n{load.tally}"
    )
    assert not load.tally.failures, str(load.tally)
    assert counted >= KILLS, "too few reads were exposed for this to prove anything"


@pytest.mark.timeout(1200)
async def test_restarting_and_scaling_under_load_fails_no_read_and_no_write_and_doubles_none(
    world: World,
) -> None:
    people = await world.register(full(90, 45))  # room for the sessions of a slow run, too
    gets = await reads(world, people[:4])
    authors = people[4:]
    room = itertools.cycle(itertools.product(SESSION_TYPES, authors))
    made: list[str] = []

    def acknowledged(body: dict) -> bool:
        made.append(body["id"])
        return True

    def get_or_post(number: int) -> Request:
        if number % 2:
            return gets[number // 2 % len(gets)]
        session_type, author = next(room)
        body = {"type": session_type, "data": {"load": number}}
        return Request("POST", f"{API}/sessions", wrong_unless(201, acknowledged), author.token, body)

    async with Load(world.nginx.url, get_or_post, connections=40, per_second=PER_SECOND) as load:
        await load.answered(100)
        for step in (("restart",), ("scale", "5"), ("scale", "2"), ("scale", "3")):
            before = load.tally.answered
            await asyncio.to_thread(world.cluster.cli, *step)
            show(f"{' '.join(step)}: {load.tally.answered - before} answered meanwhile")
        await load.answered(REQUESTS)
    show(f"{load.tally}")
    assert not load.tally.failures, str(load.tally)
    assert len(load.tally.replicas) >= 5, "the new replicas took no traffic"
    async with world.mongo() as database:
        theirs = {"user_id": {"$in": [person.id for person in authors]}}
        stored = [row["_id"] for row in database["sessions"].find(theirs, {"_id": 1})]
    assert sorted(stored) == sorted(made), "what was acknowledged is not what is there"
    await world.whole()


@pytest.mark.timeout(300)
async def test_a_frozen_replica_slows_reads_down_and_fails_none_and_serves_again_when_it_goes_on(
    world: World,
) -> None:
    requests = await reads(world, await world.register(3))
    name = sorted(world.replicas)[1]
    async with Load(world.nginx.url, lambda n: requests[n % len(requests)], connections=30) as load:
        await load.answered(300)
        async with world.frozen(name):
            await asyncio.sleep(FROZEN_S)
        served_before = load.tally.replicas[name]

        async def serves_again() -> bool:
            return load.tally.replicas[name] > served_before + 50

        took_s = await until(serves_again, timeout_s=60)
    show(f"frozen for {FROZEN_S} s: {load.tally}; its share again after {took_s:.1f} s")
    assert not load.tally.failures, str(load.tally)


@pytest.mark.timeout(300)
async def test_a_change_cut_off_by_a_kill_happened_or_did_not_and_never_happens_later(world: World) -> None:
    """What a killed replica had in its hands has no outcome for the client; it must still have one."""
    person = await world.person()
    names = sorted(world.replicas)
    unknown = 0
    for round_number in range(full(20, 3)):
        body = {"type": "temp_data", "data": {}}
        made = [
            expect(201, await world.nginx.ask("POST", f"{API}/sessions", token=person.token, body=body))["id"]
            for _ in range(4)
        ]

        async def write(number: int, made: list[str] = made) -> tuple[str, int, int | None]:
            target = made[number % len(made)]
            change = {"data": {f"field-{number}": number}}
            reply = await world.nginx.ask(
                "PATCH", f"{API}/sessions/{target}", token=person.token, body=change
            )
            return target, number, reply.status

        victim = names[round_number % len(names)]
        pid = await world.pid(victim)
        writes = asyncio.create_task(in_parallel((write(n) for n in range(60)), at_once=60))
        await asyncio.sleep(0.05)
        send_signal(pid, signal.SIGKILL)
        outcomes = await writes
        unknown += sum(status == 502 for _, _, status in outcomes)
        assert {status for _, _, status in outcomes} <= {200, 409, 502}
        await world.whole()
        seen = []
        for door in world.places:
            answers = [await door.ask("GET", f"{API}/sessions/{one}", token=person.token) for one in made]
            seen.append([expect(200, answer)["data"] for answer in answers])
        assert all(one == seen[0] for one in seen), "two places disagree"
        data = dict(zip(made, seen[0], strict=True))
        for target, number, status in outcomes:
            happened = data[target].get(f"field-{number}") == number
            assert status == 502 or happened == (status == 200), f"answered {status}, happened: {happened}"
        for target in made:
            expect(204, await world.nginx.ask("DELETE", f"{API}/sessions/{target}", token=person.token))
    show(f"{unknown} changes were cut off, each happened or did not, everywhere alike")
