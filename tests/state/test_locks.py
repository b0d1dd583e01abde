"""Fenced locks, on the real store, with holders that are frozen, killed and cancelled."""

import asyncio
import signal
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.core.settings import Settings
from app.state.held_lock import Lock, LockLostError, fenced
from app.state.kit import StateKit, open_kit
from app.state.locks import LockHeldError, Locks
from app.state.mongo import Document
from tests.cluster.counts import full
from tests.cluster.skewed_replica import SkewedClock
from tests.engines import MongoEngine
from tests.state.helpers import helper
from tests.waiting import held_by_one_task, until

FREEZES = full(50, 5)
AT_ONCE = 5
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


async def add_document(kit: StateKit, name: str = "loan:1") -> None:
    await kit.mongo.collection("guarded").insert_one({"_id": name, "by": 0})


async def written_by(kit: StateKit, name: str = "loan:1") -> int:
    document = await kit.mongo.collection("guarded").find_one({"_id": name})
    assert document is not None
    token: int = document["by"]
    return token


async def write(kit: StateKit, lock: Lock, name: str = "loan:1") -> None:
    async def work(session: Any) -> None:
        guarded = kit.mongo.collection("guarded")
        await guarded.update_one({"_id": name}, {"$set": {"by": lock.token}}, session=session)

    await lock.write(work)


async def row_of(kit: StateKit, name: str = "loan:1") -> Document:
    row = await kit.mongo.collection("locks").find_one({"_id": name})
    assert row is not None
    return row


async def end_lease(kit: StateKit, name: str = "loan:1") -> None:
    """Have the lease be over on the server, which its holder can't know."""
    await kit.mongo.collection("locks").update_one({"_id": name}, {"$set": {"expires_at": LONG_AGO}})


async def test_fifty_contenders_never_overlap_and_their_tokens_only_grow(
    kit: StateKit, settings: Settings
) -> None:
    inside: list[int] = []
    tokens: list[int] = []
    async with AsyncExitStack() as stack:
        kits = [kit, *[await stack.enter_async_context(held_by_one_task(open_kit(settings))) for _ in "ab"]]

        async def contend(contender: int) -> None:
            async with kits[contender % 3].locks.hold("loan:1", lease_s=10, wait_s=60) as lock:
                inside.append(contender)
                await asyncio.sleep(0.005)
                assert inside == [contender]
                tokens.append(lock.token)
                inside.remove(contender)

        await asyncio.gather(*(contend(n) for n in range(50)))
    assert tokens == list(range(1, 51))


async def test_a_lock_that_is_held_is_refused_at_once_with_when_to_come_back(
    kit: StateKit, other_kit: StateKit
) -> None:
    async with kit.locks.hold("loan:1", lease_s=7), kit.locks.hold("loan:2"):
        for contender in (kit, other_kit):
            with pytest.raises(LockHeldError) as refusal:
                async with contender.locks.hold("loan:1"):
                    pytest.fail("two holders")
            assert (refusal.value.status, refusal.value.code) == (409, "lock_held")
            assert 1 <= int(refusal.value.headers["Retry-After"]) <= 7
    async with other_kit.locks.hold("loan:1") as lock:
        assert lock.token == 2


async def test_who_waits_gets_the_lock_when_it_is_released(kit: StateKit, other_kit: StateKit) -> None:
    got = asyncio.Event()

    async def wait_for_it() -> None:
        async with other_kit.locks.hold("loan:1", wait_s=20):
            got.set()

    async with asyncio.TaskGroup() as tasks:
        async with kit.locks.hold("loan:1", lease_s=60):
            tasks.create_task(wait_for_it())
            await asyncio.sleep(0.3)
            assert not got.is_set()
        async with asyncio.timeout(20):
            await got.wait()


async def test_who_waits_in_vain_is_refused_in_the_end(kit: StateKit, other_kit: StateKit) -> None:
    async with kit.locks.hold("loan:1"):
        with pytest.raises(LockHeldError):
            async with other_kit.locks.hold("loan:1", wait_s=0.3):
                pytest.fail("two holders")


async def test_tokens_grow_through_release_and_expiry(kit: StateKit, other_kit: StateKit) -> None:
    tokens = []
    for round_ in range(6):
        with suppress(LockLostError):
            async with (kit, other_kit)[round_ % 2].locks.hold("loan:1") as lock:
                tokens.append(lock.token)
                if round_ % 3 == 0:
                    await end_lease(kit)
                    async with other_kit.locks.hold("loan:1") as successor:
                        tokens.append(successor.token)
    assert tokens == list(range(1, 9))


async def test_renewals_keep_the_lock_of_a_block_that_takes_longer_than_its_lease(
    kit: StateKit, other_kit: StateKit
) -> None:
    await add_document(kit)
    async with kit.locks.hold("loan:1", lease_s=1) as lock:
        for _ in range(4):
            await asyncio.sleep(0.5)
            with pytest.raises(LockHeldError):
                async with other_kit.locks.hold("loan:1"):
                    pytest.fail("two holders")
        await write(kit, lock)
    assert await written_by(kit) == 1


async def test_a_block_whose_lock_is_lost_is_cancelled(kit: StateKit, other_kit: StateKit) -> None:
    cancelled = False

    async def hold() -> None:
        nonlocal cancelled
        async with kit.locks.hold("loan:1", lease_s=1.5):
            await end_lease(kit)
            async with other_kit.locks.hold("loan:1", lease_s=60):
                try:
                    await asyncio.sleep(30)
                except asyncio.CancelledError:
                    cancelled = True
                    raise

    with pytest.raises(LockLostError) as lost:
        await hold()
    assert cancelled
    assert (lost.value.status, lost.value.code) == (409, "lock_lost")


async def test_the_block_is_cancelled_before_the_lease_ends_when_mongodb_freezes(
    kit: StateKit, mongo_engine: MongoEngine
) -> None:
    expires_at = cancelled_at = LONG_AGO

    async def hold() -> None:
        nonlocal expires_at, cancelled_at
        async with kit.locks.hold("loan:1", lease_s=3):
            expires_at = (await row_of(kit))["expires_at"]
            mongo_engine.freeze()
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                cancelled_at = datetime.now(UTC)
                raise

    with pytest.raises(LockLostError):
        await hold()
    assert LONG_AGO < cancelled_at < expires_at


@pytest.mark.parametrize("succeeded", [False, True])
async def test_a_write_is_checked_on_the_server_not_by_what_the_holder_believes(
    kit: StateKit, other_kit: StateKit, *, succeeded: bool
) -> None:
    await add_document(kit)
    async with kit.locks.hold("loan:1", lease_s=60) as lock:
        await write(kit, lock)
        await end_lease(kit)
        if succeeded:
            async with other_kit.locks.hold("loan:1") as successor:
                with pytest.raises(LockLostError):
                    await write(kit, lock)
                await write(other_kit, successor)
        else:
            with pytest.raises(LockLostError):
                await write(kit, lock)
    assert await written_by(kit) == 1 + succeeded


async def test_a_lease_that_ends_while_the_write_runs_ends_the_write(
    kit: StateKit, other_kit: StateKit
) -> None:
    await add_document(kit)

    async def work(session: Any) -> None:
        guarded = kit.mongo.collection("guarded")
        await guarded.update_one({"_id": "loan:1"}, {"$set": {"by": 99}}, session=session)
        await end_lease(kit)
        async with other_kit.locks.hold("loan:1") as successor:
            await write(other_kit, successor)  # not kept from the document by the transaction under way

    async with kit.locks.hold("loan:1", lease_s=60) as lock:
        with pytest.raises(LockLostError):
            await lock.write(work)
    assert await written_by(kit) == 2


@pytest.mark.parametrize("succeeded", [False, True])
async def test_a_holder_frozen_past_its_lease_cannot_write_when_it_wakes(
    kit: StateKit, settings: Settings, *, succeeded: bool
) -> None:
    lease_s = 2.0
    slots = asyncio.Semaphore(AT_ONCE)

    async def freeze_one(mode: str, name: str) -> None:
        await add_document(kit, name)
        async with slots, helper(settings, "lock_helper", mode, name, str(lease_s)) as holder:
            assert await holder.says() == "written 1"
            holder.send(signal.SIGSTOP)
            if succeeded:
                async with kit.locks.hold(name, wait_s=lease_s + 10) as successor:
                    await write(kit, successor, name)
                    holder.go_on()
                    holder.send(signal.SIGCONT)
                    assert await holder.says() == "LockLostError"
                    assert [each.token for each in await kit.locks.held() if each.name == name] == [2]
            else:
                expires_at = (await row_of(kit, name))["expires_at"]
                await until(lambda: kit.clock.now() > expires_at + timedelta(milliseconds=50))
                holder.go_on()
                holder.send(signal.SIGCONT)
                assert await holder.says() == "LockLostError"
        assert await written_by(kit, name) == (2 if succeeded else 0)

    async with asyncio.TaskGroup() as tasks:
        for n in range(FREEZES):
            tasks.create_task(freeze_one(("obedient", "deaf")[n % 2], f"loan:{n}"))


async def test_a_holder_that_was_frozen_for_less_than_its_lease_writes(
    kit: StateKit, settings: Settings
) -> None:
    await add_document(kit)
    async with helper(settings, "lock_helper", "obedient", "loan:1", "60") as holder:
        assert await holder.says() == "written 1"
        holder.send(signal.SIGSTOP)
        await asyncio.sleep(0.2)
        holder.go_on()
        holder.send(signal.SIGCONT)
        assert await holder.says() == "ok"
    assert await written_by(kit) == 1


async def test_the_lock_and_the_documents_of_a_killed_holder_are_free_within_its_lease_and_a_second(
    kit: StateKit, settings: Settings
) -> None:
    lease_s = 2.0
    await add_document(kit)
    async with helper(settings, "lock_helper", "obedient", "loan:1", str(lease_s)) as holder:
        assert await holder.says() == "written 1"
        holder.send(signal.SIGKILL)
        async with kit.locks.hold("loan:1", wait_s=lease_s + 1) as successor:
            await write(kit, successor)
            assert successor.token == 2
    assert await written_by(kit) == 2


async def test_what_a_killed_holder_left_is_swept_though_nobody_wants_its_lock(
    kit: StateKit, settings: Settings
) -> None:
    await add_document(kit)
    async with helper(settings, "lock_helper", "obedient", "loan:1", "1.5") as holder:
        assert await holder.says() == "written 1"
        holder.send(signal.SIGKILL)
        expires_at = (await row_of(kit))["expires_at"]
        await until(lambda: kit.clock.now() > expires_at)
        await kit.locks.sweep()
        async with asyncio.timeout(10):  # it would hang for a minute
            await kit.mongo.collection("guarded").update_one({"_id": "loan:1"}, {"$set": {"by": 7}})
    assert await written_by(kit) == 7
    assert (await row_of(kit))["claim"] is None


async def test_a_late_release_leaves_the_successor_its_lock(kit: StateKit, other_kit: StateKit) -> None:
    async with AsyncExitStack() as successor:
        async with kit.locks.hold("loan:1", lease_s=60):
            await end_lease(kit)
            await successor.enter_async_context(held_by_one_task(other_kit.locks.hold("loan:1", lease_s=60)))
        assert [(lock.name, lock.token) for lock in await kit.locks.held()] == [("loan:1", 2)]
        with pytest.raises(LockHeldError):
            async with kit.locks.hold("loan:1"):
                pytest.fail("two holders")


async def test_a_sweep_leaves_a_living_holder_its_lock(kit: StateKit, other_kit: StateKit) -> None:
    await add_document(kit)
    async with kit.locks.hold("loan:1", lease_s=1) as lock:
        for _ in range(7):
            await other_kit.locks.sweep()
            await asyncio.sleep(0.2)
        await write(kit, lock)
    assert await written_by(kit) == 1


async def test_whoever_believes_that_it_is_later_takes_and_sweeps_nothing_that_is_held(kit: StateKit) -> None:
    await add_document(kit)
    hasty = Locks(
        mongo=kit.mongo,
        processes=kit.processes,
        clock=SkewedClock(timedelta(hours=1)),
        metrics=kit.metrics,
        holder="hasty",
    )
    async with kit.locks.hold("loan:1") as lock:
        await hasty.sweep()
        with pytest.raises(LockHeldError):
            async with hasty.hold("loan:1"):
                pytest.fail("two holders")
        await write(kit, lock)
    assert await written_by(kit) == 1


async def test_cancelled_anywhere_a_contender_leaves_no_more_than_a_lease(
    kit: StateKit, other_kit: StateKit
) -> None:
    async def hold(name: str) -> None:
        async with kit.locks.hold(name, lease_s=1):
            await asyncio.sleep(0.002)

    async def cancel(n: int) -> None:
        name = f"loan:{n}"
        task = asyncio.create_task(hold(name))
        await asyncio.sleep(n * 0.0005)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        async with other_kit.locks.hold(name, wait_s=10) as lock:
            assert lock.token <= 2

    for n in range(full(100, 40)):
        await cancel(n)


async def test_a_write_that_is_cut_off_blocks_its_documents_no_longer(
    kit: StateKit, other_kit: StateKit
) -> None:
    await add_document(kit)
    written = asyncio.Event()

    async def work(session: Any) -> None:
        guarded = kit.mongo.collection("guarded")
        await guarded.update_one({"_id": "loan:1"}, {"$set": {"by": 99}}, session=session)
        written.set()
        await asyncio.Event().wait()

    async def hold() -> None:
        async with kit.locks.hold("loan:1", lease_s=2) as lock:
            await lock.write(work)

    task = asyncio.create_task(hold())
    await written.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(10):
        await kit.mongo.collection("guarded").update_one({"_id": "loan:1"}, {"$inc": {"by": 1}})
    assert await written_by(kit) == 1
    async with other_kit.locks.hold("loan:1", wait_s=10) as lock:
        assert lock.token == 2


async def test_what_the_work_raises_undoes_the_write_and_keeps_the_lock(kit: StateKit) -> None:
    await add_document(kit)

    async def work(session: Any) -> None:
        guarded = kit.mongo.collection("guarded")
        await guarded.update_one({"_id": "loan:1"}, {"$set": {"by": 99}}, session=session)
        raise ValueError("a rule says no")

    async with kit.locks.hold("loan:1") as lock:
        with pytest.raises(ValueError, match="a rule says no"):
            await lock.write(work)
        assert await written_by(kit) == 0
        await write(kit, lock)
    assert await written_by(kit) == 1
    assert await kit.locks.held() == []


async def test_writes_of_different_holders_to_one_document_all_land(
    kit: StateKit, other_kit: StateKit
) -> None:
    await add_document(kit, "shared")

    async def add_one(contender: StateKit, name: str) -> None:
        async def work(session: Any) -> None:
            guarded = contender.mongo.collection("guarded")
            document = await guarded.find_one({"_id": "shared"}, session=session)
            assert document is not None
            await guarded.update_one({"_id": "shared"}, {"$set": {"by": document["by"] + 1}}, session=session)

        async with contender.locks.hold(name) as lock:
            await lock.write(work)

    await asyncio.gather(*(add_one((kit, other_kit)[n % 2], f"loan:{n}") for n in range(8)))
    assert await written_by(kit, "shared") == 8


async def test_a_write_after_the_block_is_refused(kit: StateKit) -> None:
    await add_document(kit)
    async with kit.locks.hold("loan:1") as lock:
        pass
    with pytest.raises(LockLostError):
        await write(kit, lock)
    assert await written_by(kit) == 0


@pytest.mark.parametrize("error", [ValueError("own"), TimeoutError("own"), asyncio.CancelledError("own")])
async def test_the_block_s_own_error_comes_out_as_it_is_and_the_lock_is_free(
    kit: StateKit, error: BaseException
) -> None:
    with pytest.raises(type(error), match="own"):
        async with kit.locks.hold("loan:1"):
            raise error
    assert await kit.locks.held() == []


async def test_operators_see_who_holds_what_since_when(kit: StateKit) -> None:
    async with kit.locks.hold("loan:1"), kit.locks.hold("loan:2", lease_s=30):
        first, second = await kit.locks.held()
        assert (first.name, first.token, first.holder) == ("loan:1", 1, "replica-test")
        assert first.since <= second.since <= first.expires_at < second.expires_at
    assert await kit.locks.held() == []
    exposition = kit.metrics.exposition().decode()
    assert 'cargoflow_locks_total{kind="loan",outcome="released"} 2.0' in exposition
    assert 'cargoflow_lock_token_max{kind="loan"} 1.0' in exposition


async def test_the_token_in_a_document_s_filter_keeps_out_who_held_the_lock_before(kit: StateKit) -> None:
    await add_document(kit)
    guarded = kit.mongo.collection("guarded")
    for token, lands in ((3, True), (2, False), (3, True), (4, True), (1, False)):
        result = await guarded.update_one(
            {"_id": "loan:1", **fenced(token)}, {"$set": {"fence": token, "by": token}}
        )
        assert (result.matched_count == 1) is lands
    assert await written_by(kit) == 4
