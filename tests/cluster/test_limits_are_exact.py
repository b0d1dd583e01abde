"""A limit of N lets N through, however many replicas count, whatever clients claim, whoever dies."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping

import pytest

from app.state import keys
from tests.cluster.counts import full, show
from tests.cluster.limits import LIMITED
from tests.cluster.wire import Connection, Reply
from tests.cluster.world import API, PASSWORD, Person, World, expect, fresh_email, in_parallel

REQUESTS = full(1000, 100)
LOGINS_ALLOWED = 5
LIES: tuple[Mapping[str, str], ...] = (
    {},
    {"X-Forwarded-For": "203.0.113.{n}"},
    {"X-Forwarded-For": "203.0.113.{n}, 198.51.100.{n}"},
    {"X-Real-IP": "203.0.113.{n}"},
    {"Forwarded": "for=203.0.113.{n};proto=https;by=198.51.100.1"},
    {"X-Forwarded-For": "127.0.0.2", "X-Client-IP": "203.0.113.{n}", "CF-Connecting-IP": "203.0.113.{n}"},
)
"""What a client may claim about where it comes from; {n} differs with every request."""


async def forget_addresses(world: World) -> None:
    """Begin a new hour for callers without a user; the subject is the loopback address of this machine."""
    async with world.redis() as store:
        for key in store.scan_iter(f"{keys.RATE_WINDOW_PREFIX}anonymous:*"):
            store.delete(key)


@pytest.fixture
async def person(strict: World) -> Person:
    await forget_addresses(strict)
    person = await strict.person()
    await forget_addresses(strict)
    return person


async def at_once(urls: list[str], count: int, ask: Callable[[Connection, int], object]) -> list[Reply]:
    """Open that many connections to the places in turn, then let all of them ask at the same time."""
    connections = [Connection(urls[n % len(urls)]) for n in range(count)]
    ready = asyncio.Barrier(count)

    async def one(n: int) -> Reply:
        await ready.wait()
        return await ask(connections[n], n)  # type: ignore[misc]

    try:
        return await asyncio.gather(*(one(n) for n in range(count)))
    finally:
        for connection in connections:
            await connection.close()


def outcome(replies: list[Reply]) -> Counter[int]:
    """Count the statuses; every 429 must say when to come back."""
    for reply in replies:
        if reply.status == 429:
            assert reply.code == "rate_limited"
            assert int(reply.headers["retry-after"]) > 0
    return Counter(reply.status for reply in replies)


async def who_am_i(connection: Connection, _: int, *, token: str) -> Reply:
    return await connection.ask("GET", f"{API}/auth/me", token=token)


@pytest.mark.parametrize("way", ["straight to the replicas", "through nginx"])
async def test_of_a_thousand_requests_of_one_user_at_once_exactly_as_many_as_allowed_get_through(
    strict: World, person: Person, way: str
) -> None:
    urls = [strict.nginx.url] if way == "through nginx" else [door.url for door in strict.doors]
    replies = await at_once(urls, REQUESTS, lambda connection, n: who_am_i(connection, n, token=person.token))
    counted = outcome(replies)
    show(f"{way}: {REQUESTS} at once, {LIMITED} allowed: {dict(counted)}")
    assert counted == {200: LIMITED, 429: REQUESTS - LIMITED}


async def test_lies_about_where_a_request_comes_from_open_no_second_window(
    strict: World, person: Person
) -> None:
    async def lie(connection: Connection, n: int) -> Reply:
        claims = {name: value.format(n=n % 250) for name, value in LIES[n % len(LIES)].items()}
        return await connection.ask("GET", f"{API}/auth/me", headers=claims)

    replies = await at_once([door.url for door in strict.places], REQUESTS, lie)
    counted = outcome(replies)
    show(f"{REQUESTS} without a credential, {LIMITED} allowed an address: {dict(counted)}")
    assert counted == {401: LIMITED, 429: REQUESTS - LIMITED}


async def test_guessing_a_password_is_counted_once_over_all_replicas_whatever_address_is_claimed(
    strict: World, person: Person
) -> None:
    guesses = LIMITED - 1  # all from one address, which has a limit of its own

    async def guess(connection: Connection, n: int) -> Reply:
        claims = {name: value.format(n=n % 250) for name, value in LIES[n % len(LIES)].items()}
        body = {"email": person.email, "password": f"not-my-passphrase-{n}"}
        return await connection.ask("POST", f"{API}/auth/login", body=body, headers=claims)

    replies = await at_once([door.url for door in strict.places], guesses, guess)
    assert outcome(replies) == {401: LOGINS_ALLOWED, 429: guesses - LOGINS_ALLOWED}
    right = {"email": person.email, "password": PASSWORD}
    expect(429, await strict.nginx.ask("POST", f"{API}/auth/login", body=right))


async def test_logins_that_succeed_use_nothing_up(strict: World, person: Person) -> None:
    body = {"email": person.email, "password": PASSWORD}
    for n in range(2 * LOGINS_ALLOWED):
        expect(200, await strict.places[n % 4].ask("POST", f"{API}/auth/login", body=body))


async def test_a_rolling_restart_in_the_middle_gives_nobody_a_new_window(
    strict: World, person: Person
) -> None:
    replies: list[Reply] = []
    restarted = asyncio.Event()

    async def keep_asking() -> None:
        connection = Connection(strict.nginx.url)
        while not restarted.is_set():
            replies.append(await who_am_i(connection, 0, token=person.token))
            await asyncio.sleep(0.1)
        await connection.close()

    async def restart() -> None:
        await asyncio.to_thread(strict.cluster.cli, "restart")
        restarted.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(restart())
        for _ in range(4):
            group.create_task(keep_asking())
    await strict.whole()
    replies += await at_once(
        [door.url for door in strict.places],
        REQUESTS,
        lambda connection, n: who_am_i(connection, n, token=person.token),
    )
    counted = outcome(replies)
    show(f"{len(replies)} requests around a restart, {LIMITED} allowed: {dict(counted)}")
    assert counted == {200: LIMITED, 429: len(replies) - LIMITED}


async def test_killing_every_replica_gives_nobody_a_new_window(strict: World, person: Person) -> None:
    before = await in_parallel(
        (strict.nginx.ask("GET", f"{API}/auth/me", token=person.token) for _ in range(LIMITED // 2)),
        at_once=8,
    )
    for name in strict.replicas:
        await strict.kill_replica(name)
    await strict.whole()
    after = await at_once(
        [door.url for door in strict.places],
        REQUESTS,
        lambda connection, n: who_am_i(connection, n, token=person.token),
    )
    assert outcome([*before, *after]) == {200: LIMITED, 429: len(before) + REQUESTS - LIMITED}


async def test_a_stranger_is_refused_and_never_told_more_by_a_limit_that_is_used_up(
    strict: World, person: Person
) -> None:
    body = {"email": fresh_email(), "password": PASSWORD}
    known, unknown = person.email, body["email"]
    answers = {}
    for email in (known, unknown):
        guess = {"email": email, "password": "certainly-not-this-one"}
        replies = [
            await strict.nginx.ask("POST", f"{API}/auth/login", body=guess) for _ in range(LOGINS_ALLOWED + 1)
        ]
        answers[email] = [(reply.status, reply.code, reply.json()["detail"][:20]) for reply in replies]
    assert answers[known] == answers[unknown]
