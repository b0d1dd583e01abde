"""Scores: reckoned by the worker from what is known, by the latest of it, for reviewers' eyes."""

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.features.bookings.jobs import COLLECTION as BOOKINGS
from app.features.credit.service import SCORE
from app.features.ledger.ledger import TRANSFERS
from app.features.scans import jobs as scans
from app.features.scoring import jobs as scoring
from app.features.scoring.store import COLLECTION, ScoreStore
from app.state.job_documents import NewJob
from app.state.kit import StateKit
from tests.features.scans import samples
from tests.features.scans.uploads import hand_in
from tests.state.people import Person, new_person
from tests.state.working import until_over, working


async def enqueue(kit: StateKit, me: Person, application_id: str) -> str:
    return await kit.jobs.enqueue(
        NewJob(SCORE, {"application_id": application_id}, tenant_id=me.account.tenant_id)
    )


async def until_idle(kit: StateKit) -> None:
    """Return once no job waits or runs."""
    unfinished = {"state": {"$in": ["pending", "processing", "failed"]}}
    async with asyncio.timeout(60):
        while await kit.mongo.collection("jobs").count_documents(unfinished):  # noqa: ASYNC110  # a store
            await asyncio.sleep(0.05)


async def test_an_application_is_scored_when_it_is_made_and_again_when_a_document_was_read(
    api: httpx.AsyncClient, app_kit: StateKit, documents: str, underwriter: Person
) -> None:
    path = documents.replace("/documents", "/score")
    before = await api.get(documents.removesuffix("/documents"))
    assert (await api.get(path, headers=underwriter.headers)).status_code == 404
    async with working(app_kit, *scoring.handlers(app_kit), *scans.handlers(app_kit)):
        await until_idle(app_kit)
        first = (await api.get(path, headers=underwriter.headers)).json()
        await hand_in(api, documents, samples.photographed())
        await hand_in(api, documents, samples.born_digital(samples.STATEMENT))
        await until_idle(app_kit)
    second = (await api.get(path, headers=underwriter.headers)).json()
    assert (first["scorecard"], first["points"], first["suggestion"]) == ("2026-1", 50, "review")
    assert (second["points"], second["suggestion"]) == (75, "approve")
    assert second["revision"] > first["revision"]
    assert {factor["code"]: factor["inputs"] for factor in second["factors"]}["documents_read"] == {
        "documents_read": 2,
        "documents_failed": 0,
    }
    after = await api.get(documents.removesuffix("/documents"))
    assert after.json() == before.json(), "a suggestion decides nothing"


async def test_only_reviewers_see_a_score(
    api: httpx.AsyncClient, app_kit: StateKit, documents: str, me: Person, underwriter: Person
) -> None:
    application_id = documents.split("/")[2]
    async with working(app_kit, *scoring.handlers(app_kit)):
        await until_idle(app_kit)
    path = f"/applications/{application_id}/score"
    assert (await api.get(path)).json()["code"] == "forbidden", "the applicant"
    assert (await api.get(path, headers=underwriter.headers)).status_code == 200
    stranger = await new_person(app_kit, role="admin")
    elsewhere = await api.get(path, headers=stranger.headers)
    nowhere = await api.get("/applications/nothing/score", headers=stranger.headers)
    assert {**elsewhere.json(), "request_id": ""} == {**nowhere.json(), "request_id": ""}
    assert elsewhere.status_code == 404


async def test_the_same_inputs_write_nothing_and_the_latest_win_whoever_reckons(
    app: FastAPI, api: httpx.AsyncClient, app_kit: StateKit, documents: str, me: Person
) -> None:
    application_id, tenant_id = documents.split("/")[2], me.account.tenant_id
    scans_rows = app_kit.mongo.collection("scans")
    async with working(app_kit, *scoring.handlers(app_kit)):
        await until_idle(app_kit)
        first = await ScoreStore(app_kit).get(tenant_id, application_id)
        for job_id in [await enqueue(app_kit, me, application_id) for _ in range(4)]:
            await until_over(app_kit, job_id, tenant_id)
        assert await ScoreStore(app_kit).get(tenant_id, application_id) == first

        for number in range(1, 11):
            await scans_rows.insert_one(_read_document(tenant_id, application_id, number))
            await asyncio.gather(*(enqueue(app_kit, me, application_id) for _ in range(3)))
        await until_idle(app_kit)
    last = await ScoreStore(app_kit).get(tenant_id, application_id)
    read = next(factor for factor in last["factors"] if factor["code"] == "documents_read")
    assert read["inputs"]["documents_read"] == 10
    assert await app_kit.mongo.collection(COLLECTION).count_documents({}) == 1


async def test_two_who_reckon_at_once_leave_the_score_of_the_later_inputs(
    app_kit: StateKit, api: httpx.AsyncClient, documents: str, me: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one with the older inputs is held up between reading them and writing."""
    application_id, tenant_id = documents.split("/")[2], me.account.tenant_id
    read_inputs, held, go = ScoreStore._inputs, asyncio.Event(), asyncio.Event()

    async def hold(store: ScoreStore, *arguments: Any) -> Any:
        inputs = await read_inputs(store, *arguments)
        if not held.is_set():
            held.set()
            await go.wait()
        return inputs

    monkeypatch.setattr(ScoreStore, "_inputs", hold)
    await app_kit.mongo.collection("jobs").delete_many({})
    slow = await enqueue(app_kit, me, application_id)
    async with working(app_kit, *scoring.handlers(app_kit)):
        await held.wait()
        await app_kit.mongo.collection("scans").insert_one(_read_document(tenant_id, application_id, 1))
        quick = await enqueue(app_kit, me, application_id)
        await until_over(app_kit, quick, tenant_id)
        go.set()
        done = await until_over(app_kit, slow, tenant_id)
    score = await ScoreStore(app_kit).get(tenant_id, application_id)
    read = next(factor for factor in score["factors"] if factor["code"] == "documents_read")
    assert (done.state, read["inputs"]["documents_read"]) == ("completed", 1)


async def test_what_the_applicant_did_before_counts_and_what_others_did_does_not(
    app_kit: StateKit, documents: str, me: Person
) -> None:
    application_id, tenant_id = documents.split("/")[2], me.account.tenant_id
    for owner, statuses, kinds in (
        (
            me.account.id,
            ["booked", "delivered", "closed", "cancelled"],
            ["hold", "post", "post", "void", "payout"],
        ),
        ("usr_somebody_else", ["closed"] * 3, ["post"] * 3),
    ):
        for collection, field, values in ((BOOKINGS, "status", statuses), (TRANSFERS, "kind", kinds)):
            # numbered and keyed as they are, for the sake of unique indexes
            await app_kit.mongo.collection(collection).insert_many(
                [
                    {
                        "_id": f"{owner}:{collection}:{n}",
                        "tenant_id": tenant_id,
                        "user_id": owner,
                        field: value,
                    }
                    | {"number": f"{owner}:{n}"}
                    for n, value in enumerate(values)
                ]
            )
    async with working(app_kit, *scoring.handlers(app_kit)):
        await until_idle(app_kit)
    score = await ScoreStore(app_kit).get(tenant_id, application_id)
    inputs = {factor["code"]: factor["inputs"] for factor in score["factors"]}
    assert inputs["booking_history"] == {"total": 4, "completed": 2, "cancelled": 1}
    assert inputs["payment_history"] == {"credit_delivered": 2, "credit_voided": 1, "loans_paid_out": 1}


def _read_document(tenant_id: str, application_id: str, number: int) -> dict[str, Any]:
    return {
        "_id": f"doc_{application_id}_{number}",
        "tenant_id": tenant_id,
        "application_id": application_id,
        "number": number,
        "sha256": str(number),
        "state": "read",
        "fields": [{}],
        "confirmed": [],
        "mismatches": [],
    }
