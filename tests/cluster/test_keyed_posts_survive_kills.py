"""Replicas are killed with keyed POSTs in hand, and clients repeat them: no effect is doubled or missing."""

import asyncio
import itertools
import json
import math
import random
import secrets
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.cluster.counts import full, show
from tests.cluster.wire import Broken, Door
from tests.cluster.world import API, PASSWORD, Person, World, expect, fresh_email, in_parallel, send_signal

KILLS = full(60, 6)
SESSIONS = 32
"""New sessions a kill: a transaction that inserts."""
PREFERENCES = 6
"""Writes of one session a kill: transactions that meet each other."""
USERS = 2
"""New users a kill: one document that carries its key."""
ROOM_A_PERSON = 300
"""Three types of sessions, a hundred of each."""
PATIENCE_S = 60
FROZEN_S = 8
"""Longer than Nginx waits for an answer."""


@dataclass
class Post:
    """One request with its key, to be repeated until it is answered, and what became of it."""

    path: str
    body: dict[str, Any]
    person: Person
    key: str = field(default_factory=secrets.token_hex)
    answers: list[dict[str, Any]] = field(default_factory=list)


class Client:
    """Repeats until it gets an answer, as a careful client would; counts what came in between."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.seen: Counter[str] = Counter()
        self.slowest_s = 0.0

    async def send(self, post: Post, first: Door) -> None:
        began_s = time.monotonic()
        async with asyncio.timeout(PATIENCE_S):
            for place in itertools.chain([first], iter(self._world.anywhere, None)):
                if await self._answered(post, place):
                    break
                await asyncio.sleep(0.05)
        self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)

    async def _answered(self, post: Post, place: Door) -> bool:
        headers = {"Idempotency-Key": post.key}
        try:
            reply = await place.ask(
                "POST", f"{API}/{post.path}", token=post.person.token, body=post.body, headers=headers
            )
        except Broken:
            self.seen["cut off"] += 1
            return False
        if reply.status in {409, 502, 503, 504}:
            self.seen[reply.code or str(reply.status)] += 1
            return False
        assert reply.status in {200, 201}, str(reply)
        self.seen["replayed" if "idempotent-replayed" in reply.headers else "first"] += 1
        post.answers.append(reply.json())
        return True


def posts_of(round_number: int, authors: list[Person], admin: Person) -> list[Post]:
    """Return the posts of one kill, each for an effect of its own."""
    posts = []
    for n in range(SESSIONS):
        number = round_number * SESSIONS + n
        author = authors[number // ROOM_A_PERSON]
        session_type = ("temp_data", "cart", "user_session")[number % 3]
        posts.append(Post("sessions", {"type": session_type, "data": {"number": number}}, author))
    for n in range(PREFERENCES):
        body = {"type": "preferences", "data": {"n": f"{round_number}-{n}"}}
        posts.append(Post("sessions", body, admin))
    for _ in range(USERS):
        user = {"email": fresh_email(), "name": "Grace", "role": "driver", "password": PASSWORD}
        posts.append(Post("users", user, admin))
    return posts


@pytest.mark.timeout(1800)
async def test_no_effect_is_doubled_or_missing_when_replicas_are_killed_with_keyed_posts_in_flight(
    world: World,
) -> None:
    authors = await world.register(math.ceil(KILLS * SESSIONS / ROOM_A_PERSON))
    admin = await world.person()
    client = Client(world)
    posts: list[Post] = []
    freed_s = []
    for round_number in range(KILLS):
        victim, its_door = sorted(world.replicas.items())[round_number % len(world.replicas)]
        pid = await world.pid(victim)
        burst = posts_of(round_number, authors, admin)
        random.shuffle(burst)
        doors = itertools.cycle([its_door, world.nginx])
        sending = asyncio.create_task(
            in_parallel((client.send(post, next(doors)) for post in burst), at_once=len(burst))
        )
        await asyncio.sleep(random.uniform(0.01, 0.12))  # noqa: S311  # somewhere in the middle of it
        send_signal(pid, signal.SIGKILL)
        killed_s = time.monotonic()
        await sending
        # What the dead one had open is not in anybody's way: neither was it in that of the posts above, nor
        # is it in that of a plain update.
        preferences = next(post.answers[0]["id"] for post in burst if post.body.get("type") == "preferences")
        survivor = next(door for name, door in sorted(world.replicas.items()) if name != victim)
        path = f"{API}/sessions/{preferences}"
        expect(200, await survivor.ask("PATCH", path, token=admin.token, body={"data": {}}))
        freed_s.append(time.monotonic() - killed_s)
        posts += burst
        await world.is_back(victim)
        await world.whole()
    show(f"{KILLS} kills: {dict(client.seen)}, slowest {client.slowest_s:.1f} s")
    show(f"all answered after a kill within {[round(seconds, 1) for seconds in freed_s]} s")
    assert client.seen["cut off"] >= KILLS, "too few requests were cut off for this to prove anything"

    for post in random.sample(posts, min(len(posts), 60)):
        await client.send(post, world.anywhere())
        assert post.answers[0] == post.answers[-1]
    await everything_happened_once(world, posts, authors, admin, patches=KILLS)


@pytest.mark.timeout(300)
async def test_a_frozen_replica_that_goes_on_does_not_repeat_what_was_done_in_its_place(world: World) -> None:
    """Clients, and Nginx, give up on it and repeat elsewhere; then it wakes up with their posts in hand."""
    (author,), admin = await world.register(1), await world.person()
    client = Client(world)
    (victim, its_door), (_, survivor), _ = sorted(world.replicas.items())
    posts = posts_of(0, [author], admin)
    pid = await world.pid(victim)

    async def send_and_repeat(post: Post) -> None:
        async with asyncio.TaskGroup() as copies:
            copies.create_task(client.send(post, its_door))
            await asyncio.sleep(2)
            copies.create_task(client.send(post, survivor))

    cut = len(posts) // 2
    sending = asyncio.create_task(
        in_parallel(
            [
                *(send_and_repeat(post) for post in posts[:cut]),
                *(client.send(post, world.nginx) for post in posts[cut:]),
            ],
            at_once=len(posts),
        )
    )
    await asyncio.sleep(0.03)
    send_signal(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(FROZEN_S)
    finally:
        send_signal(pid, signal.SIGCONT)
    await sending
    show(f"frozen for {FROZEN_S} s: {dict(client.seen)}, slowest {client.slowest_s:.1f} s")
    assert client.seen["replayed"] >= cut // 2, "too little was in its hands for this to prove anything"
    assert all(answer == post.answers[0] for post in posts for answer in post.answers)
    await world.whole()
    await everything_happened_once(world, posts, [author], admin, patches=0)


async def everything_happened_once(
    world: World, posts: list[Post], authors: list[Person], admin: Person, *, patches: int
) -> None:
    made = {json.dumps(post.body): post.answers[0]["id"] for post in posts}
    async with world.mongo() as database:
        rows = list(database["sessions"].find({"user_id": {"$in": [person.id for person in authors]}}))
        users = list(database["users"].find({"tenant_id": admin.tenant_id, "role": "driver"}))
    stored = {row["_id"]: json.loads(row["data"])["number"] for row in rows}
    answered = {
        post.answers[0]["id"]: post.body["data"]["number"]
        for post in posts
        if post.body.get("type") in {"temp_data", "cart", "user_session"}
    }
    assert stored == answered, "sessions: what is there is not what was answered"
    assert len(made) == len(posts)
    emails = {user["_id"]: user["email"] for user in users}
    assert emails == {post.answers[0]["id"]: post.body["email"] for post in posts if post.path == "users"}, (
        "users: what is there is not what was answered"
    )
    answer = await world.nginx.ask("GET", f"{API}/sessions?type=preferences", token=admin.token)
    (preferences,) = expect(200, answer)["items"]
    writes = [post for post in posts if post.body.get("type") == "preferences"]
    versions = sorted(post.answers[0]["version"] for post in writes)
    assert len(set(versions)) == len(writes), "two posts were one write"
    assert preferences["version"] == len(writes) + patches, (
        "a write of the preferences was doubled or is missing"
    )
