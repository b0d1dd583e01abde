"""Conversations and their runs in MongoDB, with two replicas at them at once."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.core.errors import NotFoundError
from app.features.chat.documents import Call, Outcome, Run, Step
from app.features.chat.errors import RunInProgressError
from app.features.chat.store import LEASE, SETTLES_WITHIN, ConversationStore
from app.state.kit import StateKit
from app.state.session_documents import Owner

ME = Owner("ten_a", "usr_a")
SOMEBODY_ELSE = (Owner("ten_a", "usr_b"), Owner("ten_b", "usr_a"))


@pytest.fixture
def store(kit: StateKit) -> ConversationStore:
    return ConversationStore(kit)


@pytest.fixture
def other(other_kit: StateKit) -> ConversationStore:
    return ConversationStore(other_kit)


async def started(store: ConversationStore, *, by: str = "own_1") -> Run:
    return await store.start_first(ME, "one?", title="one?", by=by, request_id="req")


async def lapsed(store: ConversationStore, run: Run) -> None:
    """Let a run's lease be over."""
    rows = store._conversations
    await rows.update_one(
        {"_id": run.conversation_id}, {"$set": {"run.lease_ends_at": datetime.now(UTC) - timedelta(hours=1)}}
    )


async def contents(store: ConversationStore, conversation_id: str) -> list[str]:
    conversation = await store.get(ME, conversation_id)
    return [row["content"] for row in await store.history(ME, conversation, before=None, limit=100)]


async def test_of_many_turns_started_at_once_through_two_replicas_one_runs_and_the_others_are_told_which(
    store: ConversationStore, other: ConversationStore
) -> None:
    first = await started(store)
    await store.finish(first, "done", "1")
    outcomes = await asyncio.gather(
        *(
            (store, other)[n % 2].start_next(ME, first.conversation_id, f"q{n}", by="own", request_id="r")
            for n in range(20)
        ),
        return_exceptions=True,
    )
    runs = [outcome for outcome in outcomes if isinstance(outcome, Run)]
    refusals = [outcome for outcome in outcomes if isinstance(outcome, RunInProgressError)]
    assert (len(runs), len(refusals)) == (1, 19)
    assert {refusal.extra["run_id"] for refusal in refusals} == {runs[0].id}
    assert runs[0].turn == 2


async def test_a_lease_that_runs_is_not_taken_and_one_that_is_over_by_one_of_many(
    store: ConversationStore, other: ConversationStore
) -> None:
    run = await started(store)
    assert await store.take_over(run, by="own_2") is None
    await lapsed(store, run)
    taken = await asyncio.gather(*((store, other)[n % 2].take_over(run, by=f"own_{n}") for n in range(2, 12)))
    winners = [one for one in taken if one is not None]
    assert len(winners) == 1
    assert winners[0].epoch == run.epoch + 1


async def test_a_former_owner_journals_and_finishes_nothing(
    store: ConversationStore, other: ConversationStore
) -> None:
    old = await started(store)
    await lapsed(store, old)
    new = await other.take_over(old, by="own_2")
    assert new is not None
    step = Step(0, (Call("c", "quote", "{}"),), ("{}",))
    assert not await store.journal_step(old, step, text="old")
    assert not await store.journal_text(old, "old")
    assert not await store.finish(old, "done", "old")
    await store.release(old)
    assert await other.take_over(new, by="own_3") is None, (
        "the former owner's release freed its successor's run"
    )
    assert await other.journal_step(new, step, text="new")
    assert await other.finish(new, "done", "new")
    assert not await other.finish(new, "failed", "again")
    assert await contents(store, old.conversation_id) == ["one?", "new"]


async def test_renewing_keeps_a_run_and_tells_whose_it_is(
    store: ConversationStore, other: ConversationStore
) -> None:
    run = await started(store)
    await lapsed(store, run)
    assert await store.renew("own_1") == {run.id: 1}
    assert await other.take_over(run, by="own_2") is None
    assert await other.take_over(run, by="own_2", stopping=True) is not None
    assert await store.renew("own_1") == {}


async def test_a_released_run_is_found_and_taken_at_once(
    store: ConversationStore, other: ConversationStore
) -> None:
    run = await started(store)
    await store.release(run)
    found: list[Any] = []

    async def look() -> None:
        found[:] = await other.left_over(10)

    async with asyncio.timeout(LEASE.total_seconds() * 2):
        while not found:
            await look()
    assert [row["_id"] for row in found] == [run.conversation_id]
    assert await other.take_over(Run.from_document(found[0]), by="own_2") is not None


async def test_what_a_process_left_between_finishing_and_settling_is_settled_by_whoever_comes(
    store: ConversationStore, other: ConversationStore
) -> None:
    run = await started(store)
    await store.finish(run, "done", "1")
    assert await contents(other, run.conversation_id) == ["one?", "1"], "readers need not wait for it"
    outcome = await other.find_run(ME, run.id)
    assert isinstance(outcome, Outcome)
    assert outcome.text == "1"
    following = await other.start_next(ME, run.conversation_id, "two?", by="own_2", request_id="r")
    assert following.turn == 2
    assert await contents(other, run.conversation_id) == ["one?", "1", "two?"]
    later = await other.find_run(ME, run.id)
    assert later == outcome


async def test_a_run_that_ended_is_left_to_its_owner_for_a_while_and_then_found_by_others(
    store: ConversationStore, other: ConversationStore, kit: StateKit
) -> None:
    run = await started(store)
    ended = await store.finish(run, "done", "1")
    conversations, now = kit.mongo.collection("conversations"), datetime.now(UTC)
    await conversations.update_one({}, {"$set": {"run.lease_ends_at": now - timedelta(seconds=1)}})
    assert await other.left_over(10) == []
    assert await other.left_unsettled(10) == []
    long_ago = now - SETTLES_WITHIN - timedelta(seconds=1)
    await conversations.update_one({}, {"$set": {"run.lease_ends_at": long_ago}})
    assert [row["_id"] for row in await other.left_unsettled(10)] == [run.conversation_id]
    assert ended is not None
    await store.settle([ended])
    assert await other.left_unsettled(10) == []


async def test_settling_any_number_of_times_at_once_copies_each_message_once(
    store: ConversationStore, other: ConversationStore, kit: StateKit
) -> None:
    run = await started(store)
    conversation = await store.get(ME, run.conversation_id)
    ended = {**conversation["run"], "state": "done", "text": "1", "finished_at": datetime.now(UTC)}
    await asyncio.gather(*((store, other)[n % 2].settle([{**conversation, "run": ended}]) for n in range(10)))
    assert await kit.mongo.collection("messages").count_documents({}) == 2


async def test_settling_many_at_once_frees_them_all_and_brings_back_nothing_of_a_deleted_one(
    store: ConversationStore, kit: StateKit
) -> None:
    runs = [await started(store) for _ in range(5)]
    ended = [await store.finish(run, "done", "1") for run in runs]
    await store.delete(ME, runs[2].conversation_id)
    await store.settle([conversation for conversation in ended if conversation is not None])
    living = [run.conversation_id for run in runs if run is not runs[2]]
    for conversation_id in living:
        conversation = await store.get(ME, conversation_id)
        assert (conversation["status"], "run" in conversation) == ("idle", False)
        assert await contents(store, conversation_id) == ["one?", "1"]
    messages = kit.mongo.collection("messages")
    assert await messages.count_documents({}) == 2 * len(living)


async def test_deleting_ends_the_run_and_a_straggler_s_messages_are_removed(
    store: ConversationStore, other: ConversationStore, kit: StateKit
) -> None:
    run = await started(store)
    conversation = await store.get(ME, run.conversation_id)
    assert await other.delete(ME, run.conversation_id) is not None
    assert not await store.finish(run, "done", "late")
    ended = {**conversation["run"], "state": "done", "text": "1", "finished_at": datetime.now(UTC)}
    await store.settle([{**conversation, "run": ended}])
    messages = kit.mongo.collection("messages")
    assert await messages.count_documents({}) == 0
    with pytest.raises(NotFoundError):
        await store.get(ME, run.conversation_id)
    await messages.insert_one({"_id": "msg_x", "conversation_id": run.conversation_id, "turn": 1, "n": 0})
    await store.sweep(datetime.now(UTC) + timedelta(minutes=1))
    assert await messages.count_documents({}) == 0
    assert await kit.mongo.collection("conversations").count_documents({}) == 0


@pytest.mark.parametrize("owner", SOMEBODY_ELSE)
async def test_nobody_else_finds_starts_or_deletes_anything(store: ConversationStore, owner: Owner) -> None:
    run = await started(store)
    for attempt in (
        store.get(owner, run.conversation_id),
        store.find_run(owner, run.id),
        store.delete(owner, run.conversation_id),
        store.start_next(owner, run.conversation_id, "mine?", by="own", request_id="r"),
    ):
        with pytest.raises(NotFoundError):
            await attempt
    assert await store.page(owner, before=None, limit=10) == []
    await store.finish(run, "done", "1")
    with pytest.raises(NotFoundError):
        await store.find_run(owner, run.id)


async def test_text_that_looks_like_an_expression_is_kept_as_it_is(store: ConversationStore) -> None:
    run = await store.start_first(ME, "$turn", title="$turn", by="own", request_id="r")
    await store.finish(run, "done", "$$NOW")
    second = await store.start_next(ME, run.conversation_id, "$run.id", by="own", request_id="$r")
    await store.finish(second, "failed", "$text", {"detail": "$detail"})
    assert await contents(store, run.conversation_id) == ["$turn", "$$NOW", "$run.id", "$text"]


async def test_every_query_of_a_run_rides_on_an_index(kit: StateKit, store: ConversationStore) -> None:
    await started(store)
    rows = kit.mongo.collection("conversations")
    names = {tuple(index["key"]) for index in (await rows.index_information()).values()}
    for field in ("run.id", "run.owner", "run.lease_ends_at", "deleted_at", "outbox.created_at"):
        assert ((field, 1),) in names
