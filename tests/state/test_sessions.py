"""Sessions, rule by rule, on the real stores."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import orjson
import pytest
import redis.asyncio

from app.core.errors import (
    ForbiddenError,
    NotFoundError,
    PayloadTooLargeError,
    StoreUnavailableError,
    ValidationFailedError,
    VersionConflictError,
)
from app.core.settings import Settings
from app.state import keys, sessions
from app.state.hot import HotRead
from app.state.kit import StateKit
from app.state.session_documents import (
    DATA_MAX_BYTES,
    DEFAULT_TTL_S,
    SESSION_TYPES,
    Owner,
    Session,
    hot_name,
)
from app.state.session_slots import SESSIONS_MAX, SessionLimitError
from app.state.versions import VersionCheck
from tests.engines import MongoEngine, RedisEngine
from tests.waiting import until

ME = Owner("ten_a", "usr_a")
COLLEAGUE = Owner("ten_a", "usr_b")
NAMESAKE = Owner("ten_b", "usr_a")


async def cart(kit: StateKit, data: dict[str, Any] | None = None, *, ttl_s: int | None = None) -> Session:
    return await kit.sessions.create(ME, "cart", data or {}, ttl_s=ttl_s)


async def seen(kit: StateKit, session_id: str, *, claim: bool = True) -> HotRead:
    """What admission brings along."""
    return await kit.hot.read(hot_name(ME, session_id), claim=claim)


async def read(kit: StateKit, session_id: str, *, owner: Owner = ME, extend: bool = False) -> dict[str, Any]:
    """Read as a request does: from the hot copy, else from MongoDB, filling the copy."""
    found = await kit.hot.read(hot_name(owner, session_id), claim=extend)
    reading = await kit.sessions.read(owner, session_id, found, extend=extend)
    body: dict[str, Any] = orjson.loads(reading.body)
    assert (body["version"], body["type"]) == (reading.version, reading.type)
    return body


async def make_hot(kit: StateKit, session_id: str) -> HotRead:
    await read(kit, session_id)
    found = await seen(kit, session_id, claim=False)
    assert found.state == "hit"
    return found


async def told_to_extend(kit: StateKit, session_id: str) -> HotRead:
    """Read until this reader is the one to extend."""
    async with asyncio.timeout(20):
        while not (found := await seen(kit, session_id)).touch:  # noqa: ASYNC110  # Redis' time has to pass
            await asyncio.sleep(0.02)
    return found


async def age(kit: StateKit, session_id: str, *, seconds: float) -> None:
    """Let that much of a session's life be over, in the record."""
    rows = kit.mongo.collection("sessions")
    row = await rows.find_one({"_id": session_id})
    assert row is not None
    moved = {name: row[name] - timedelta(seconds=seconds) for name in ("last_accessed_at", "expires_at")}
    await rows.update_one({"_id": session_id}, {"$set": moved})


async def test_a_new_session_is_answered_as_it_is_read_by_every_replica(
    kit: StateKit, other_kit: StateKit
) -> None:
    made = await cart(kit, {"items": [1, 2.5, "ü", None, {"$set": 1, "a.b": 2}]})
    assert made.id.startswith("ses_")
    for replica in (other_kit, kit, other_kit):
        assert await read(replica, made.id) == orjson.loads(made.body)
    body = orjson.loads(made.body)
    assert list(body) == [
        "id", "type", "data", "version", "created_at", "last_accessed_at", "expires_at",
    ]  # fmt: skip
    assert body["version"] == 1
    assert body["created_at"].endswith("Z")
    assert len(body["created_at"]) == len("2026-01-31T10:00:00.000Z")


@pytest.mark.parametrize("session_type", SESSION_TYPES)
async def test_each_type_has_its_time_to_live_unless_one_is_asked_for(
    kit: StateKit, session_type: sessions.SessionType
) -> None:
    made = await kit.sessions.create(ME, session_type, {})
    assert made.expires_at - made.created_at == timedelta(seconds=DEFAULT_TTL_S[session_type])
    theirs = await kit.sessions.create(COLLEAGUE, session_type, {}, ttl_s=60)
    assert theirs.expires_at - theirs.created_at == timedelta(seconds=60)


async def test_a_hot_session_is_answered_from_its_copy_byte_for_byte(kit: StateKit) -> None:
    made = await cart(kit, {"n": 1})
    found = await make_hot(kit, made.id)
    reading = await kit.sessions.read(ME, made.id, found)
    assert reading.body is found.body
    assert reading.body == made.body


async def test_what_belongs_to_others_does_not_exist(kit: StateKit) -> None:
    made = await cart(kit)
    await make_hot(kit, made.id)
    for stranger in (COLLEAGUE, NAMESAKE):
        with pytest.raises(NotFoundError):
            await read(kit, made.id, owner=stranger)
        with pytest.raises(NotFoundError):
            await kit.sessions.mutate(stranger, made.id, lambda _: {})
        with pytest.raises(NotFoundError):
            await kit.sessions.delete(stranger, made.id)
        assert await kit.sessions.page(stranger, limit=10) == []
    assert (await read(kit, made.id))["version"] == 1


async def test_an_expired_session_is_gone_for_every_operation_long_before_any_sweep(kit: StateKit) -> None:
    made = await cart(kit, ttl_s=60)
    await age(kit, made.id, seconds=61)
    with pytest.raises(NotFoundError):
        await read(kit, made.id, extend=True)
    with pytest.raises(NotFoundError):
        await kit.sessions.mutate(ME, made.id, lambda _: {})
    with pytest.raises(NotFoundError):
        await kit.sessions.delete(ME, made.id)
    assert await kit.sessions.page(ME, limit=10) == []
    assert await kit.mongo.collection("sessions").find_one({"_id": made.id}) is not None


async def test_a_copy_whose_session_has_expired_is_not_believed(kit: StateKit) -> None:
    made = await cart(kit, ttl_s=60)
    found = await make_hot(kit, made.id)
    await age(kit, made.id, seconds=61)
    ended = HotRead("hit", found.head.replace(b"[1,", b"[1,-"), found.body)
    with pytest.raises(NotFoundError):
        await kit.sessions.read(ME, made.id, ended)


async def test_a_copy_that_ends_before_its_session_is_looked_up_rather_than_taken_for_the_end(
    kit: StateKit,
) -> None:
    made = await cart(kit)
    found = await make_hot(kit, made.id)
    ended = HotRead("hit", found.head.replace(b"[1,", b"[1,-"), found.body)
    assert (await kit.sessions.read(ME, made.id, ended)).body == made.body


async def test_an_access_extends_once_a_tenth_of_the_life_is_spent_and_not_before(kit: StateKit) -> None:
    made = await cart(kit, {"n": 1}, ttl_s=1000)
    await age(kit, made.id, seconds=90)
    before = await read(kit, made.id, extend=True)
    await kit.redis.client.delete(keys.hot_copy(hot_name(ME, made.id)))
    await age(kit, made.id, seconds=20)
    unextended = await read(kit, made.id, extend=False)
    await kit.redis.client.delete(keys.hot_copy(hot_name(ME, made.id)))
    extended = await read(kit, made.id, extend=True)
    assert unextended["expires_at"] < before["expires_at"] < extended["expires_at"]
    assert extended["version"] == 1
    assert extended["data"] == {"n": 1}
    assert await read(kit, made.id) == extended, "the copy shows the extension"


async def test_a_hot_session_is_extended_by_one_reader_and_its_copy_shows_it(
    kit: StateKit, other_kit: StateKit
) -> None:
    made = await cart(kit, ttl_s=100)
    await age(kit, made.id, seconds=9.9)
    await make_hot(kit, made.id)
    found = await told_to_extend(other_kit, made.id)
    assert not (await seen(kit, made.id)).touch, "only one reader is told"
    reading = await other_kit.sessions.read(ME, made.id, found)
    extended = orjson.loads(reading.body)
    assert extended["version"] == 1
    assert await read(kit, made.id) == extended
    row = await kit.mongo.collection("sessions").find_one({"_id": made.id})
    assert row is not None
    assert row["expires_at"] == datetime.fromisoformat(extended["expires_at"])
    assert row["expires_at"] - row["last_accessed_at"] == timedelta(seconds=100)
    assert not (await seen(kit, made.id)).touch, "a tenth has to be spent anew"


async def test_a_read_that_does_not_extend_leaves_the_extension_to_the_next_reader(kit: StateKit) -> None:
    made = await cart(kit, ttl_s=100)
    await age(kit, made.id, seconds=20)
    await make_hot(kit, made.id)
    for _ in range(5):
        found = await seen(kit, made.id, claim=False)
        await kit.sessions.read(ME, made.id, found, extend=False)
    found = await told_to_extend(kit, made.id)
    before = orjson.loads(found.body)
    extended = orjson.loads((await kit.sessions.read(ME, made.id, found)).body)
    assert extended["expires_at"] > before["expires_at"]


async def test_an_extension_does_not_bring_a_deleted_session_back(kit: StateKit, other_kit: StateKit) -> None:
    made = await cart(kit, ttl_s=100)
    await age(kit, made.id, seconds=20)
    found = await make_hot(kit, made.id)
    told = HotRead("hit", found.head, found.body, touch=True)
    await other_kit.sessions.delete(ME, made.id)
    with pytest.raises(NotFoundError):
        await kit.sessions.read(ME, made.id, told)
    assert (await seen(kit, made.id)).state == "gone"
    assert await kit.mongo.collection("sessions").find_one({"_id": made.id}) is None


async def test_an_extension_that_meets_a_write_answers_with_what_was_written(
    kit: StateKit, other_kit: StateKit
) -> None:
    made = await cart(kit, {"n": 1}, ttl_s=100)
    found = await make_hot(kit, made.id)
    await other_kit.sessions.mutate(ME, made.id, lambda _: {"n": 2})
    told = HotRead("hit", found.head, found.body, touch=True)
    reading = await kit.sessions.read(ME, made.id, told)
    assert (reading.version, orjson.loads(reading.body)["data"]) == (2, {"n": 2})
    assert (await read(other_kit, made.id))["data"] == {"n": 2}


async def test_a_write_is_what_the_next_read_through_any_replica_shows(
    kit: StateKit, other_kit: StateKit
) -> None:
    made = await cart(kit, {"a": 1})
    await make_hot(other_kit, made.id)
    changed = await kit.sessions.mutate(ME, made.id, lambda session: {**session.data, "b": 2})
    assert changed.version == 2
    assert (await seen(other_kit, made.id)).body == changed.body, "a lone writer fills the copy"
    assert await read(other_kit, made.id) == orjson.loads(changed.body)
    stored = Session.from_document(await kit.mongo.collection("sessions").find_one({"_id": made.id}))
    assert stored == changed


async def test_a_write_extends(kit: StateKit) -> None:
    made = await cart(kit, ttl_s=1000)
    await age(kit, made.id, seconds=500)
    changed = await kit.sessions.mutate(ME, made.id, lambda _: {})
    assert changed.expires_at >= made.expires_at
    assert changed.expires_at - changed.last_accessed_at == timedelta(seconds=1000)


async def test_a_write_may_give_a_new_time_to_live_longer_or_shorter(kit: StateKit) -> None:
    made = await cart(kit, ttl_s=1000)
    for ttl_s in (50, 5000):
        changed = await kit.sessions.mutate(ME, made.id, lambda _: {}, ttl_s=ttl_s)
        assert changed.expires_at - changed.last_accessed_at == timedelta(seconds=ttl_s)
        row = await kit.mongo.collection("sessions").find_one({"_id": made.id})
        assert row is not None
        assert (row["expires_at"], row["ttl_s"]) == (changed.expires_at, ttl_s)


async def test_a_change_that_returns_none_leaves_everything_as_it_is(kit: StateKit) -> None:
    made = await cart(kit, {"n": 1})
    found = await make_hot(kit, made.id)
    same = await kit.sessions.mutate(ME, made.id, lambda _: None)
    assert same == made
    assert (await seen(kit, made.id, claim=False)).body == found.body


async def test_a_change_that_refuses_changes_nothing(kit: StateKit) -> None:
    made = await cart(kit, {"n": 1})
    await make_hot(kit, made.id)

    def refuse(_: Session) -> dict[str, Any]:
        raise ForbiddenError("no")

    with pytest.raises(ForbiddenError):
        await kit.sessions.mutate(ME, made.id, refuse)
    assert await read(kit, made.id) == orjson.loads(made.body)


async def test_a_caller_who_names_another_version_than_the_current_one_is_told_which_it_is(
    kit: StateKit, other_kit: StateKit
) -> None:
    made = await cart(kit)

    def only(version: int) -> VersionCheck:
        def check(current: int) -> None:
            if current != version:
                raise VersionConflictError(current_version=current)

        return check

    assert (await kit.sessions.mutate(ME, made.id, lambda _: {"n": 1}, check_version=only(1))).version == 2
    with pytest.raises(VersionConflictError) as refused:
        await other_kit.sessions.mutate(ME, made.id, lambda _: {"n": 2}, check_version=only(1))
    assert refused.value.extra == {"current_version": 2}
    assert (await read(kit, made.id))["data"] == {"n": 1}


async def test_a_stale_copy_refuses_nobody_who_names_the_version_of_the_record(kit: StateKit) -> None:
    """A replica that was cut off wrote past Redis; for a moment the copy lags behind."""
    made = await cart(kit, {"n": 1})
    await make_hot(kit, made.id)
    rows = kit.mongo.collection("sessions")
    await rows.update_one({"_id": made.id}, {"$set": {"data": '{"n":2}', "version": 2}})

    def only_two(current: int) -> None:
        if current != 2:
            raise VersionConflictError(current_version=current)

    changed = await kit.sessions.mutate(ME, made.id, lambda s: {**s.data, "m": 3}, check_version=only_two)
    assert (changed.version, changed.data) == (3, {"n": 2, "m": 3})


async def test_who_names_a_version_that_is_over_is_refused_by_the_copy_alone(
    kit: StateKit, mongo_engine: MongoEngine
) -> None:
    made = await cart(kit, {"n": 1})
    await kit.sessions.mutate(ME, made.id, lambda _: {"n": 2})
    found = await make_hot(kit, made.id)

    def only_one(current: int) -> None:
        if current != 1:
            raise VersionConflictError(current_version=current)

    mongo_engine.freeze()
    with pytest.raises(VersionConflictError) as refused:
        await kit.sessions.mutate(
            ME, made.id, lambda _: {"n": 3}, found, check_version=only_one, newest_named=1
        )
    assert refused.value.extra == {"current_version": 2}
    assert (await seen(kit, made.id, claim=False)).body == found.body


async def test_a_refusal_that_had_to_ask_mongodb_leaves_a_copy_to_the_next(kit: StateKit) -> None:
    made = await cart(kit, {"n": 1})
    cold = await seen(kit, made.id, claim=False)
    assert (cold.state, bool(cold.lease)) == ("miss", True)

    def never(current: int) -> None:
        raise VersionConflictError(current_version=current)

    with pytest.raises(VersionConflictError):
        await kit.sessions.mutate(ME, made.id, lambda _: {}, cold, check_version=never, newest_named=0)
    assert (await seen(kit, made.id, claim=False)).body == made.body


async def test_data_may_take_64_kb_and_not_a_byte_more(kit: StateKit) -> None:
    fits = {"x": "a" * (DATA_MAX_BYTES - len('{"x":""}'))}
    made = await cart(kit, fits)
    with pytest.raises(PayloadTooLargeError):
        await kit.sessions.mutate(ME, made.id, lambda session: {**session.data, "y": 1})
    with pytest.raises(PayloadTooLargeError):
        await cart(kit, {"x": fits["x"] + "a"})
    after = await read(kit, made.id)
    assert (after["version"], after["data"]) == (1, fits)


@pytest.mark.parametrize("data", [{"x": "\ud800"}, {"x": 2**70}, {"\udfff": 1}])
async def test_data_that_json_cannot_say_is_refused(kit: StateKit, data: dict[str, Any]) -> None:
    with pytest.raises(ValidationFailedError):
        await cart(kit, data)


async def test_a_deleted_session_is_gone_everywhere_and_deleting_it_again_is_not_found(
    kit: StateKit, other_kit: StateKit
) -> None:
    made = await cart(kit)
    await make_hot(kit, made.id)
    await other_kit.sessions.delete(ME, made.id)
    for replica in (kit, other_kit):
        with pytest.raises(NotFoundError):
            await read(replica, made.id)
        with pytest.raises(NotFoundError):
            await replica.sessions.delete(ME, made.id)
        with pytest.raises(NotFoundError):
            await replica.sessions.mutate(ME, made.id, lambda _: {})


async def test_the_hundred_and_first_session_of_a_type_is_refused_and_other_types_are_not(
    kit: StateKit,
) -> None:
    for _ in range(SESSIONS_MAX):
        await cart(kit)
    with pytest.raises(SessionLimitError):
        await cart(kit)
    await kit.sessions.create(ME, "temp_data", {})
    await kit.sessions.create(COLLEAGUE, "cart", {})
    await kit.sessions.create(NAMESAKE, "cart", {})


async def test_a_deleted_and_an_expired_session_make_room(kit: StateKit) -> None:
    made = [await cart(kit, {"n": n}) for n in range(SESSIONS_MAX)]
    await kit.sessions.delete(ME, made[17].id)
    await cart(kit)
    with pytest.raises(SessionLimitError):
        await cart(kit)
    await age(kit, made[42].id, seconds=8 * 86400)
    newest = await cart(kit)
    with pytest.raises(SessionLimitError):
        await cart(kit)
    listed = [session.id for session in await kit.sessions.page(ME, limit=200)]
    assert len(listed) == SESSIONS_MAX
    assert newest.id in listed


async def test_preferences_are_one_a_user_and_posting_them_again_replaces(kit: StateKit) -> None:
    first, created = await kit.sessions.put_single(ME, "preferences", {"theme": "dark", "n": 1})
    assert created
    again, created = await kit.sessions.put_single(ME, "preferences", {"theme": "light"}, ttl_s=60)
    assert (created, again.id, again.version, again.data) == (False, first.id, 2, {"theme": "light"})
    assert again.expires_at - again.last_accessed_at == timedelta(seconds=60)
    with pytest.raises(SessionLimitError):
        await kit.sessions.create(ME, "preferences", {})
    await age(kit, first.id, seconds=61)
    new, created = await kit.sessions.put_single(ME, "preferences", {})
    assert (created, new.version) == (True, 1)
    assert new.id != first.id


async def test_pages_go_through_all_living_sessions_newest_first_each_once(kit: StateKit) -> None:
    kinds: list[sessions.SessionType] = ["cart", "temp_data", "booking_draft"]
    made = [await kit.sessions.create(ME, kinds[n % 3], {"n": n}) for n in range(25)]
    same_moment = made[0].created_at
    await kit.mongo.collection("sessions").update_many(
        {"_id": {"$in": [session.id for session in made[:10]]}}, {"$set": {"created_at": same_moment}}
    )
    await age(kit, made[3].id, seconds=400 * 86400)
    seen_ids: list[str] = []
    before = None
    while rows := await kit.sessions.page(ME, before=before, limit=7):
        seen_ids += [session.id for session in rows]
        before = (rows[-1].created_at, rows[-1].id)
    assert len(seen_ids) == len(set(seen_ids)) == 24
    newest_first = sorted(made[10:], key=lambda session: (session.created_at, session.id), reverse=True)
    assert seen_ids[:15] == [session.id for session in newest_first]
    carts = await kit.sessions.page(ME, session_type="cart", limit=100)
    assert {session.type for session in carts} == {"cart"}
    assert len(carts) == 8


async def test_listing_does_not_extend(kit: StateKit) -> None:
    made = await cart(kit, ttl_s=100)
    await age(kit, made.id, seconds=50)
    (listed,) = await kit.sessions.page(ME, limit=10)
    assert listed.expires_at < made.expires_at


async def test_without_redis_sessions_are_read_written_and_deleted_in_mongodb(
    kit: StateKit, redis_engine: RedisEngine
) -> None:
    made = await cart(kit, {"n": 1})
    await make_hot(kit, made.id)
    redis_engine.kill()
    await until(lambda: kit.redis._breaker.is_open)
    await kit.sessions.mutate(ME, made.id, lambda _: {"n": 2})
    assert (await read(kit, made.id, extend=True))["data"] == {"n": 2}
    later = await cart(kit)
    await kit.sessions.delete(ME, later.id)
    with pytest.raises(NotFoundError):
        await read(kit, later.id)
    await asyncio.to_thread(redis_engine.start)
    await until(lambda: not kit.redis._breaker.is_open)
    assert (await read(kit, made.id))["data"] == {"n": 2}


async def test_without_mongodb_a_hot_session_is_read_also_when_it_is_due_for_extension(
    kit: StateKit, mongo_engine: MongoEngine, settings: Settings
) -> None:
    made = await cart(kit, {"n": 1}, ttl_s=100)
    cold = await cart(kit)
    found = await make_hot(kit, made.id)
    mongo_engine.freeze()
    await until(lambda: kit.mongo._breaker.is_open)
    async with redis.asyncio.from_url(settings.redis_url.get_secret_value()) as client:
        await client.hset(keys.hot_copy(hot_name(ME, made.id)), "due", 1)
    for _ in range(3):
        now = await seen(kit, made.id)
        assert (now.state, now.body) == ("hit", found.body)
        assert orjson.loads((await kit.sessions.read(ME, made.id, now)).body) == orjson.loads(made.body)
    with pytest.raises(StoreUnavailableError):
        await kit.sessions.read(ME, cold.id, await seen(kit, cold.id))
    with pytest.raises(StoreUnavailableError):
        await kit.sessions.mutate(ME, cold.id, lambda _: {})
    with pytest.raises(StoreUnavailableError):
        await cart(kit)


async def test_indexes_are_made_twice_without_harm_and_serve_the_queries(kit: StateKit) -> None:
    await sessions.ensure_indexes(kit.mongo)
    indexes = await kit.mongo.collection("sessions").index_information()
    assert indexes["one_session_a_slot"]["unique"]
    assert indexes["tidy_up_expired"]["expireAfterSeconds"] == 0
    assert "newest_first" in indexes
