import asyncio
from typing import Any

import httpx
import pytest

from app.state.job_documents import NewJob
from app.state.job_run import GiveUpError, Handler, Run
from app.state.kit import StateKit
from tests.state.people import Person, new_person
from tests.state.working import until_over, working

T = "test.job"


@pytest.fixture
async def admin(kit: StateKit) -> Person:
    return await new_person(kit, role="admin")


@pytest.fixture
async def stranger(kit: StateKit) -> Person:
    """An admin of another tenant."""
    return await new_person(kit, role="admin")


async def enqueue(kit: StateKit, person: Person, **fields: Any) -> str:
    account = person.account
    job = NewJob(fields.pop("type", T), {"n": 1}, tenant_id=account.tenant_id, user_id=account.id, **fields)
    return await kit.jobs.enqueue(job)


async def give_up(run: Run) -> None:
    raise GiveUpError("of no use")


async def succeed(run: Run) -> dict[str, Any]:
    return {"seen": run.job.payload["n"]}


async def dead_job(kit: StateKit, person: Person, **fields: Any) -> str:
    job_id = await enqueue(kit, person, **fields)
    async with working(kit, Handler(T, give_up)):
        await until_over(kit, job_id, person.account.tenant_id)
    return job_id


async def test_who_caused_a_job_sees_how_it_stands_without_its_errors(
    api: httpx.AsyncClient, kit: StateKit, admin: Person
) -> None:
    shipper = await new_person(kit, role="shipper", tenant_id=admin.account.tenant_id)
    job_id = await enqueue(kit, shipper)
    async with working(kit, Handler(T, succeed)):
        await until_over(kit, job_id, shipper.account.tenant_id)
    answer = await api.get(f"/jobs/{job_id}", headers=shipper.headers)
    assert answer.status_code == 200
    assert answer.json() == {
        **answer.json(), "id": job_id, "type": T, "state": "completed", "attempts": 0, "crashes": 0,
        "result": {"seen": 1},
    }  # fmt: skip
    assert {"payload", "errors", "tenant_id"}.isdisjoint(answer.json())


async def test_to_others_a_job_does_not_exist_but_staff_of_the_tenant_see_it(
    api: httpx.AsyncClient, kit: StateKit, admin: Person, stranger: Person
) -> None:
    tenant_id = admin.account.tenant_id
    shipper = await new_person(kit, role="shipper", tenant_id=tenant_id)
    job_id = await enqueue(kit, shipper)
    for role, status in (
        ("admin", 200), ("dispatcher", 200), ("underwriter", 200), ("driver", 404), ("shipper", 404),
    ):  # fmt: skip
        person = await new_person(kit, role=role, tenant_id=tenant_id)
        assert (await api.get(f"/jobs/{job_id}", headers=person.headers)).status_code == status
    request_id = {"X-Request-ID": "f" * 32}
    hidden = await api.get(f"/jobs/{job_id}", headers={**stranger.headers, **request_id})
    missing = await api.get("/jobs/job_none", headers={**stranger.headers, **request_id})
    assert (hidden.status_code, hidden.content) == (404, missing.content)


async def test_an_admin_counts_lists_and_filters_the_tenants_jobs_only(
    api: httpx.AsyncClient, kit: StateKit, admin: Person, stranger: Person
) -> None:
    await dead_job(kit, admin)
    waiting = [await enqueue(kit, admin, type="test.other") for _ in range(3)]
    await enqueue(kit, stranger)
    stats = (await api.get("/admin/queue-stats", headers=admin.headers)).json()
    none = {"pending": 0, "processing": 0, "completed": 0, "failed": 0, "dead": 0}
    assert stats == {
        **none, "pending": 3, "dead": 1,
        "by_type": {
            T: {**none, "dead": 1, "paused": False},
            "test.other": {**none, "pending": 3, "paused": False},
        },
    }  # fmt: skip
    first = (await api.get("/admin/jobs?type=test.other&limit=2", headers=admin.headers)).json()
    more = {"cursor": first["next_cursor"], "type": "test.other"}
    second = (await api.get("/admin/jobs", params=more, headers=admin.headers)).json()
    assert [item["id"] for item in (*first["items"], *second["items"])] == waiting[::-1]
    assert second["next_cursor"] is None
    dead = (await api.get("/admin/jobs?state=dead", headers=admin.headers)).json()["items"]
    assert [(item["payload"], item["errors"][0]["message"]) for item in dead] == [({"n": 1}, "of no use")]
    for query in ("state=lost", "type=$ne", "cursor=x", "limit=0", "type[$ne]=x&state="):
        assert (await api.get(f"/admin/jobs?{query}", headers=admin.headers)).status_code == 422


async def test_a_dead_job_is_retried_once_with_its_history_kept(
    api: httpx.AsyncClient, kit: StateKit, admin: Person, stranger: Person
) -> None:
    job_id = await dead_job(kit, admin)
    path = f"/admin/jobs/{job_id}/retry"
    assert (await api.post(path, headers=stranger.headers)).status_code == 404
    answers = await asyncio.gather(*(api.post(path, headers=admin.headers) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409]
    refused = next(answer for answer in answers if answer.status_code == 409).json()
    assert (refused["code"], refused["allowed"]) == ("invalid_transition", ["failed", "dead"])
    async with working(kit, Handler(T, succeed)):
        job = await until_over(kit, job_id, admin.account.tenant_id)
    assert (job.state, job.attempts, [error.message for error in job.errors]) == (
        "completed",
        0,
        ["of no use"],
    )


async def test_a_job_is_not_retried_beside_another_with_its_key(
    api: httpx.AsyncClient, kit: StateKit, admin: Person
) -> None:
    job_id = await dead_job(kit, admin, key="k")
    assert await enqueue(kit, admin, key="k") != job_id
    answer = await api.post(f"/admin/jobs/{job_id}/retry", headers=admin.headers)
    assert (answer.status_code, answer.json()["code"]) == (409, "job_superseded")
    all_of_them = await api.post("/admin/jobs/retry", json={"state": "dead"}, headers=admin.headers)
    assert all_of_them.json() == {"retried": 0, "more": False}


async def test_jobs_are_retried_by_filter(
    api: httpx.AsyncClient, kit: StateKit, admin: Person, stranger: Person
) -> None:
    ids = [await enqueue(kit, admin) for _ in range(4)]
    others = await enqueue(kit, stranger)
    async with working(kit, Handler(T, give_up)):
        for job_id in ids:
            await until_over(kit, job_id, admin.account.tenant_id)
        await until_over(kit, others, stranger.account.tenant_id)
    none = await api.post("/admin/jobs/retry", json={"state": "failed"}, headers=admin.headers)
    assert none.json()["retried"] == 0
    wanted = {"state": "dead", "type": T}
    done = await api.post("/admin/jobs/retry", json=wanted, headers=admin.headers)
    assert done.json() == {"retried": 4, "more": False}
    states = [(await kit.jobs.get(admin.account.tenant_id, job_id)).state for job_id in ids]
    assert states == ["pending"] * 4
    assert (await kit.jobs.get(stranger.account.tenant_id, others)).state == "dead"


@pytest.mark.parametrize(
    "body",
    [{}, {"state": "completed"}, {"state": "dead", "type": {"$ne": ""}}, {"state": "dead", "x": 1}, []],
)
async def test_a_filter_that_breaks_a_rule_is_refused(
    api: httpx.AsyncClient, admin: Person, body: Any
) -> None:
    assert (await api.post("/admin/jobs/retry", json=body, headers=admin.headers)).status_code == 422


async def test_a_paused_type_waits_for_that_tenant_alone_and_goes_on_when_resumed(
    api: httpx.AsyncClient, kit: StateKit, admin: Person, stranger: Person
) -> None:
    queue = f"/admin/queues/{T}"
    for _ in range(2):
        paused = await api.post(f"{queue}/pause", headers=admin.headers)
        assert paused.json() == {"type": T, "paused": True}
    mine, other_type = await enqueue(kit, admin), await enqueue(kit, admin, type="test.other")
    theirs = await enqueue(kit, stranger)
    async with working(kit, Handler(T, succeed), Handler("test.other", succeed)):
        await until_over(kit, theirs, stranger.account.tenant_id)
        await until_over(kit, other_type, admin.account.tenant_id)
        assert (await kit.jobs.get(admin.account.tenant_id, mine)).state == "pending"
        stats = (await api.get("/admin/queue-stats", headers=admin.headers)).json()
        assert stats["by_type"][T] == {**stats["by_type"][T], "pending": 1, "paused": True}
        resumed = await api.post(f"{queue}/resume", headers=admin.headers)
        assert resumed.json() == {"type": T, "paused": False}
        await until_over(kit, mine, admin.account.tenant_id)
    assert (await api.post(f"{queue}/resume", headers=admin.headers)).status_code == 200
    assert (await api.post("/admin/queues/$x/pause", headers=admin.headers)).status_code == 422


async def test_what_is_put_aside_for_a_pause_that_has_just_ended_goes_on(
    kit: StateKit, admin: Person
) -> None:
    tenant_id = admin.account.tenant_id
    await kit.job_pauses.pause(tenant_id=tenant_id, job_type=T)
    job_id = await enqueue(kit, admin)
    row = await kit.mongo.collection("jobs").find_one({"_id": job_id})
    pause_id = (await kit.job_pauses.active())[tenant_id, T]
    await kit.job_pauses.resume(tenant_id=tenant_id, job_type=T)
    assert row is not None
    await kit.job_pauses.hold(row, pause_id)  # a worker that looked before the pause ended
    async with working(kit, Handler(T, succeed)):
        await until_over(kit, job_id, tenant_id)


async def test_the_metrics_show_queues_and_outcomes_of_the_whole_cluster(
    client: httpx.AsyncClient, kit: StateKit, admin: Person
) -> None:
    await dead_job(kit, admin)
    for _ in range(3):
        await enqueue(kit, admin, type="test.other")
    await kit.job_tally.look()
    text = (await client.get("/metrics")).text
    assert 'cargoflow_job_queue_depth{state="ready",type="test.other"} 3.0' in text
    assert 'cargoflow_jobs_total{outcome="dead",type="test.job"} 1.0' in text
    assert 'cargoflow_job_duration_seconds_count{type="test.job"} 1.0' in text
    assert 'cargoflow_job_oldest_seconds{type="test.other"}' in text
