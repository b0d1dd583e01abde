"""Outboxes: jobs that are there if and only if the document that causes them is."""

import asyncio
from typing import Any

import pytest

from app.core.settings import Settings
from app.state.job_documents import NewJob
from app.state.job_run import Handler, Run
from app.state.jobs import ensure_outbox_index
from app.state.kit import StateKit
from tests.state.working import until_over, working

T = "test.job"


@pytest.fixture(autouse=True)
async def boxes(kit: StateKit) -> None:
    await ensure_outbox_index(kit.mongo, "boxes")


async def fill(kit: StateKit, document_id: str, *jobs: NewJob) -> None:
    box = {"_id": document_id, "outbox": kit.jobs.outbox(jobs)}
    await kit.mongo.collection("boxes").insert_one(box)


async def outbox_of(kit: StateKit, document_id: str) -> list[Any]:
    box = await kit.mongo.collection("boxes").find_one({"_id": document_id})
    assert box is not None
    outbox: list[Any] = box["outbox"]
    return outbox


async def test_relaying_enqueues_each_job_once_however_often_it_is_done(
    kit: StateKit, other_kit: StateKit
) -> None:
    jobs = [NewJob(T, {"n": n}) for n in range(3)]
    await fill(kit, "a", *jobs)
    await asyncio.gather(*(each.jobs.relay("boxes", "a") for each in (kit, other_kit) for _ in range(5)))
    await kit.jobs.relay("boxes", "a")
    await kit.jobs.relay("boxes", "nothing")
    assert await outbox_of(kit, "a") == []
    stored = await kit.mongo.collection("jobs").find({}).to_list(None)
    assert {row["_id"] for row in stored} == {job.id for job in jobs}


async def test_a_relay_that_was_cut_short_is_finished_by_a_worker(kit: StateKit) -> None:
    ran: list[int] = []

    async def note(run: Run) -> None:
        ran.append(run.job.payload["n"])

    cut, whole = NewJob(T, {"n": 1}), NewJob(T, {"n": 2})
    await fill(kit, "a", cut, whole)
    await kit.jobs.enqueue(cut)  # and died
    async with working(kit, Handler(T, note), outboxes=("boxes",)):
        await until_over(kit, whole.id)
        await until_over(kit, cut.id)
    assert sorted(ran) == [1, 2]
    assert await outbox_of(kit, "a") == []


async def test_what_was_added_while_relaying_stays_in_the_outbox(kit: StateKit) -> None:
    first, second = NewJob(T, {}), NewJob(T, {})
    await fill(kit, "a", first)
    document = await kit.mongo.collection("boxes").find_one({"_id": "a"})
    added = {"$push": {"outbox": {"$each": kit.jobs.outbox([second])}}}
    await kit.mongo.collection("boxes").update_one({"_id": "a"}, added)
    assert document is not None
    await kit.jobs._relay("boxes", document)
    assert [row["_id"] for row in await outbox_of(kit, "a")] == [second.id]


async def test_an_outbox_is_left_to_its_request_for_a_moment(kit: StateKit, settings: Settings) -> None:
    await fill(kit, "a", NewJob(T, {}))
    await kit.jobs.relay_left("boxes")
    assert len(await outbox_of(kit, "a")) == 1
