"""Sessions under three replicas at once, on the real stores."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

import orjson
import pytest

from app.core.errors import ConflictError, NotFoundError, VersionConflictError
from app.core.merge_patch import merge_patch
from app.core.settings import Settings
from app.state.kit import StateKit, open_kit
from app.state.session_documents import Owner, Session, hot_name
from app.state.session_slots import SESSIONS_MAX, SessionLimitError
from tests.cluster.counts import full
from tests.waiting import held_by_one_task, until

ME = Owner("ten_a", "usr_a")
REPLICAS = 3
PAIRS = full(5000, 300)
ROUNDS = full(300, 40)

Change = Callable[[Session], dict[str, Any]]


@pytest.fixture
async def kits(settings: Settings) -> AsyncIterator[list[StateKit]]:
    """As many replicas on the same stores."""
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(held_by_one_task(open_kit(settings))) for _ in range(REPLICAS)
        ]
        for kit in opened:
            await until(
                lambda kit=kit: kit.mongo.health.status == "pass" and kit.redis.health.status == "pass"
            )
        yield opened


def merging(patch: dict[str, Any]) -> Change:
    return lambda session: merge_patch(session.data, patch)


async def read(kit: StateKit, session_id: str, *, extend: bool = True) -> dict[str, Any]:
    found = await kit.hot.read(hot_name(ME, session_id), claim=extend)
    reading = await kit.sessions.read(ME, session_id, found, extend=extend)
    body: dict[str, Any] = orjson.loads(reading.body)
    return body


async def outcomes(calls: list[Awaitable[Any]]) -> Counter[str]:
    """Count how the calls ended: `ok`, or the name of the error."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    return Counter(type(result).__name__ if isinstance(result, BaseException) else "ok" for result in results)


async def test_a_read_through_another_replica_never_shows_less_than_was_acknowledged(
    kits: list[StateKit],
) -> None:
    made = await kits[0].sessions.create(ME, "cart", {"n": 0})
    done = asyncio.Event()
    acknowledged = 0
    stale: list[tuple[int, int]] = []

    async def keep_reading(kit: StateKit) -> None:
        """Readers in between are what puts old copies back, if anything does."""
        while not done.is_set():
            at_least = acknowledged
            found = (await read(kit, made.id))["data"]["n"]
            if found < at_least:
                stale.append((found, at_least))

    async with asyncio.TaskGroup() as group:
        for kit in kits:
            group.create_task(keep_reading(kit))
        for n in range(1, PAIRS + 1):
            writer, reader = random.sample(kits, 2)
            await writer.sessions.mutate(ME, made.id, lambda _, n=n: {"n": n})
            acknowledged = n
            found = (await read(reader, made.id))["data"]["n"]
            if found < n:
                stale.append((found, n))
        done.set()
    assert stale == []


async def test_two_hundred_patches_of_one_session_at_once_all_survive(kits: list[StateKit]) -> None:
    made = await kits[0].sessions.create(ME, "cart", {})

    async def patch(n: int) -> None:
        change = merging({f"field-{n}": n, "nested": {str(n): True}})
        while True:
            with suppress(
                ConflictError
            ):  # on a slow machine some are told to come again, and nothing changed
                await kits[n % REPLICAS].sessions.mutate(ME, made.id, change)
                return

    assert await outcomes([patch(n) for n in range(200)]) == {"ok": 200}
    for kit in kits:
        body = await read(kit, made.id)
        assert body["version"] == 201
        assert body["data"] == {
            **{f"field-{n}": n for n in range(200)},
            "nested": {str(n): True for n in range(200)},
        }
        assert len(kit.sessions._turnstile) == 0


async def test_of_a_hundred_writers_who_name_one_version_exactly_one_wins(kits: list[StateKit]) -> None:
    made = await kits[0].sessions.create(ME, "cart", {})

    def only_one(current: int) -> None:
        if current != 1:
            raise VersionConflictError(current_version=current)

    calls = [
        kits[n % REPLICAS].sessions.mutate(ME, made.id, lambda _, n=n: {"n": n}, check_version=only_one)
        for n in range(100)
    ]
    assert await outcomes(calls) == {"ok": 1, "VersionConflictError": 99}
    assert (await read(kits[1], made.id))["version"] == 2


async def test_a_deleted_session_is_not_resurrected_by_what_it_races_with(kits: list[StateKit]) -> None:
    rows = kits[0].mongo.collection("sessions")

    async def race() -> None:
        made = await kits[0].sessions.create(ME, "temp_data", {}, ttl_s=10)
        deleted = asyncio.Event()

        async def keep_using(kit: StateKit, use: Callable[[], Awaitable[Any]]) -> None:
            last_round = False
            while not last_round:
                last_round = deleted.is_set()
                if last_round:
                    with pytest.raises(NotFoundError):
                        await use()
                else:
                    with suppress(NotFoundError):
                        await use()

        async def extend(kit: StateKit) -> None:
            found = await kit.hot.read(hot_name(ME, made.id))
            session = await kit.sessions._find(ME, made.id)
            if session is None:
                raise NotFoundError
            await kit.sessions._extend(ME, session)
            await kit.sessions.read(ME, made.id, found)

        async with asyncio.TaskGroup() as group:
            for kit in kits:
                group.create_task(keep_using(kit, lambda kit=kit: read(kit, made.id)))
                group.create_task(keep_using(kit, lambda kit=kit: extend(kit)))
                group.create_task(
                    keep_using(kit, lambda kit=kit: kit.sessions.mutate(ME, made.id, merging({"x": 1})))
                )
            await asyncio.sleep(random.uniform(0, 0.02))  # noqa: S311  # spreads the races
            await random.choice(kits).sessions.delete(ME, made.id)  # noqa: S311  # any of them
            deleted.set()
        assert await rows.find_one({"_id": made.id}) is None

    for _ in range(ROUNDS):
        await race()


async def test_the_limit_of_sessions_is_exact_however_many_are_created_at_once(kits: list[StateKit]) -> None:
    calls = [kits[n % REPLICAS].sessions.create(ME, "cart", {"n": n}) for n in range(SESSIONS_MAX + 50)]
    assert await outcomes(calls) == {"ok": SESSIONS_MAX, "SessionLimitError": 50}
    rows = [row async for row in kits[0].mongo.collection("sessions").find({"type": "cart"})]
    assert sorted(row["slot"] for row in rows) == list(range(SESSIONS_MAX))


async def test_the_limit_holds_while_sessions_are_deleted_and_made_at_once(kits: list[StateKit]) -> None:
    made = await asyncio.gather(*(kits[0].sessions.create(ME, "cart", {}) for _ in range(SESSIONS_MAX)))
    deletions = [kits[0].sessions.delete(ME, session.id) for session in made[:30]]
    creations = [kits[1 + n % 2].sessions.create(ME, "cart", {}) for n in range(60)]
    counted, deleted = await asyncio.gather(outcomes(creations), outcomes(deletions))
    assert deleted == {"ok": 30}
    assert counted["ok"] + counted["SessionLimitError"] == 60
    listed = await kits[2].sessions.page(ME, limit=200)
    assert len(listed) == SESSIONS_MAX - 30 + counted["ok"] <= SESSIONS_MAX


async def test_preferences_posted_by_many_at_once_are_created_once_and_never_an_error(
    kits: list[StateKit],
) -> None:
    for n in range(full(30, 5)):
        owner = Owner("ten_a", f"usr_{n}")
        results = await asyncio.gather(
            *(kits[m % REPLICAS].sessions.put_single(owner, "preferences", {"by": m}) for m in range(12))
        )
        assert sum(created for _, created in results) == 1
        assert len({session.id for session, _ in results}) == 1
        assert {session.version for session, _ in results} == set(range(1, 13))
        (only,) = await kits[0].sessions.page(owner, limit=10)
        last = next(session for session, _ in results if session.version == 12)
        assert only.data == last.data


async def test_preferences_that_are_deleted_and_posted_at_once_are_never_an_error(
    kits: list[StateKit],
) -> None:
    async def delete_what_is_there() -> None:
        for session in await kits[2].sessions.page(ME, limit=10):
            with suppress(NotFoundError):
                await kits[2].sessions.delete(ME, session.id)

    for _ in range(full(50, 10)):
        calls: list[Awaitable[Any]] = [
            kits[m % REPLICAS].sessions.put_single(ME, "preferences", {"by": m}) for m in range(6)
        ]
        assert await outcomes([*calls, delete_what_is_there(), delete_what_is_there()]) == {"ok": 8}
        assert len(await kits[0].sessions.page(ME, limit=10)) <= 1


@pytest.mark.parametrize("committed", [False, True])
async def test_reads_are_right_after_a_writer_was_killed_before_or_after_its_commit(
    kits: list[StateKit], *, committed: bool
) -> None:
    made = await kits[0].sessions.create(ME, "cart", {"n": 1})
    for kit in kits:
        await read(kit, made.id)
    await kits[0].hot.writing(hot_name(ME, made.id)).__aenter__()  # and never leaves
    if committed:
        rows = kits[0].mongo.collection("sessions")
        await rows.update_one({"_id": made.id}, {"$set": {"data": '{"n":2}', "version": 2}})
    for kit in kits * 3:
        assert (await read(kit, made.id))["data"]["n"] == 1 + committed
    await kits[1].sessions.mutate(ME, made.id, merging({"m": 1}))
    for kit in kits:
        assert (await read(kit, made.id))["data"] == {"n": 1 + committed, "m": 1}


async def test_the_session_limit_names_its_type() -> None:
    assert "100 sessions of type cart" in SessionLimitError("cart", SESSIONS_MAX).detail
