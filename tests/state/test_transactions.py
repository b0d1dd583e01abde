"""Transactions on the real store: contention, failure, cancellation and lost answers."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from app.core.errors import ConflictError, StoreUnavailableError
from app.state.kit import StateKit
from app.state.transactions import AT_ONCE, OutcomeUnknownError
from tests.engines import MongoEngine
from tests.waiting import until


async def add_documents(kit: StateKit, *names: str) -> None:
    await kit.mongo.collection("guarded").insert_many([{"_id": name, "by": 0} for name in names])


async def value(kit: StateKit, name: str) -> int:
    document = await kit.mongo.collection("guarded").find_one({"_id": name})
    assert document is not None
    by: int = document["by"]
    return by


async def add_one(kit: StateKit, name: str, session: Any) -> None:
    await kit.mongo.collection("guarded").update_one({"_id": name}, {"$inc": {"by": 1}}, session=session)


async def test_all_of_it_happens_and_what_the_work_returned_comes_back(kit: StateKit) -> None:
    await add_documents(kit, "a", "b")

    async def work(session: Any) -> str:
        await add_one(kit, "a", session)
        await add_one(kit, "b", session)
        return "done"

    assert await kit.transactions.run(work) == "done"
    assert (await value(kit, "a"), await value(kit, "b")) == (1, 1)


async def test_none_of_it_happens_when_the_work_raises(kit: StateKit) -> None:
    await add_documents(kit, "a")

    async def work(session: Any) -> None:
        await add_one(kit, "a", session)
        raise ValueError("a rule says no")

    with pytest.raises(ValueError, match="a rule says no"):
        await kit.transactions.run(work)
    await add_one(kit, "a", None)  # not blocked by what was undone
    assert await value(kit, "a") == 1


async def test_transactions_of_two_replicas_on_one_document_all_land(
    kit: StateKit, other_kit: StateKit
) -> None:
    await add_documents(kit, "a", "b")

    async def move(each: StateKit) -> None:
        async def work(session: Any) -> None:
            document = await each.mongo.collection("guarded").find_one({"_id": "a"}, session=session)
            assert document is not None
            await each.mongo.collection("guarded").update_one(
                {"_id": "a"}, {"$set": {"by": document["by"] + 1}}, session=session
            )
            await add_one(each, "b", session)

        done = False
        while not done:  # as a client would that is told to try again
            with suppress(ConflictError):
                await each.transactions.run(work)
                done = True

    await asyncio.gather(*(move((kit, other_kit)[n % 2]) for n in range(16)))
    assert (await value(kit, "a"), await value(kit, "b")) == (16, 16)


async def test_more_than_run_at_once_wait_for_their_turn(kit: StateKit) -> None:
    names = [f"document:{n}" for n in range(2 * AT_ONCE)]
    await add_documents(kit, *names)

    async def work(name: str, session: Any) -> None:
        await add_one(kit, name, session)

    await asyncio.gather(
        *(kit.transactions.run(lambda session, name=name: work(name, session)) for name in names)
    )
    assert [await value(kit, name) for name in names] == [1] * len(names)


async def test_who_meets_another_transaction_for_too_long_is_told_so_and_has_changed_nothing(
    kit: StateKit, other_kit: StateKit
) -> None:
    await add_documents(kit, "a")
    inside, leave = asyncio.Event(), asyncio.Event()

    async def hold(session: Any) -> None:
        await add_one(kit, "a", session)
        inside.set()
        await leave.wait()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(kit.transactions.run(hold))
        await inside.wait()
        with pytest.raises(ConflictError) as refusal:
            await other_kit.transactions.run(lambda session: add_one(other_kit, "a", session))
        leave.set()
    assert refusal.value.headers["Retry-After"] == "1"
    assert await value(kit, "a") == 1


async def test_a_cancelled_transaction_blocks_its_documents_no_longer(kit: StateKit) -> None:
    await add_documents(kit, "a")
    inside = asyncio.Event()

    async def work(session: Any) -> None:
        await add_one(kit, "a", session)
        inside.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(kit.transactions.run(work))
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(10):  # left alone it would hang for a minute
        await add_one(kit, "a", None)
    assert await value(kit, "a") == 1


async def test_cancelled_anywhere_it_happened_or_did_not_and_blocks_nothing(kit: StateKit) -> None:
    await add_documents(kit, "a", "b")

    async def work(session: Any) -> None:
        await add_one(kit, "a", session)
        await add_one(kit, "b", session)

    for n in range(40):
        task = asyncio.create_task(kit.transactions.run(work))
        await asyncio.sleep(n * 0.0002)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    async with asyncio.timeout(20):
        await add_one(kit, "a", None)
        await add_one(kit, "b", None)
    assert await value(kit, "a") == await value(kit, "b")


async def test_with_mongodb_gone_it_says_so_and_nothing_was_changed(
    kit: StateKit, mongo_engine: MongoEngine
) -> None:
    await add_documents(kit, "a")

    async def work(session: Any) -> None:
        await add_one(kit, "a", session)
        mongo_engine.freeze()
        await add_one(kit, "a", session)

    with pytest.raises(StoreUnavailableError) as refusal:
        await kit.transactions.run(work)
    assert not isinstance(refusal.value, OutcomeUnknownError)
    mongo_engine.thaw()
    await until(lambda: kit.mongo.health.status == "pass")
    async with asyncio.timeout(20):
        await add_one(kit, "a", None)
    assert await value(kit, "a") == 1


async def test_a_commit_whose_answer_is_lost_has_an_outcome_that_is_said_to_be_unknown(
    kit: StateKit, mongo_engine: MongoEngine
) -> None:
    await add_documents(kit, "a", "b")

    async def work(session: Any) -> None:
        await add_one(kit, "a", session)
        await add_one(kit, "b", session)
        mongo_engine.freeze()

    with pytest.raises(OutcomeUnknownError) as refusal:
        await kit.transactions.run(work)
    assert (refusal.value.status, refusal.value.code) == (503, "store_unavailable")
    assert "can't say whether it was saved" in refusal.value.detail
    mongo_engine.thaw()
    await until(lambda: kit.mongo.health.status == "pass")
    async with asyncio.timeout(20):
        await add_one(kit, "a", None)
        await add_one(kit, "b", None)
    assert await value(kit, "a") == await value(kit, "b")


async def test_a_guard_inside_of_the_transaction_s_own_still_opens_the_breaker(
    kit: StateKit, mongo_engine: MongoEngine
) -> None:
    await add_documents(kit, "a")

    async def work(session: Any) -> None:
        async with kit.mongo.guard("guarded.update"):
            await add_one(kit, "a", session)

    mongo_engine.freeze()
    for _ in range(3):
        with pytest.raises(StoreUnavailableError):
            await kit.transactions.run(work)
    assert 'cargoflow_breaker_open{store="MongoDB"} 1.0' in kit.metrics.exposition().decode()
    mongo_engine.thaw()
    await until(lambda: kit.mongo.health.status == "pass")
    async with asyncio.timeout(20):
        await add_one(kit, "a", None)
