"""What is stored of an application, and what follows from it."""

from typing import Any

import httpx
import pytest
from bson import BSON

from app.core.errors import InvalidTransitionError
from app.features.credit import lists
from app.features.credit.documents import EVENTS_MAX, HISTORY_MAX, new_event
from app.features.credit.schemas import NOTE_MAX_CHARACTERS
from app.features.credit.service import pay
from app.features.credit.store import COLLECTION
from app.state.kit import StateKit
from app.state.mongo import ClientSession
from tests.features.answers import problem
from tests.features.credit.applications import application, apply, apply_until, decide, history
from tests.state.people import Person

ACTOR = {"user_id": "usr_u", "name": "Uta", "role": "underwriter"}


async def jobs(kit: StateKit, application_id: str) -> list[str]:
    wanted = {"payload.application_id": application_id}
    return [row["type"] async for row in kit.mongo.collection("jobs").find(wanted).sort("created_at")]


async def test_an_application_is_scored_and_an_approval_granted_once(
    api: httpx.AsyncClient, app_kit: StateKit, underwriter: Person
) -> None:
    made = await apply(api)
    assert await jobs(app_kit, made["id"]) == ["credit.score"]
    for step in ("in_review", "approved"):
        made = (await decide(api, underwriter, made, step)).json()
    await decide(api, underwriter, made, "approved", note="Told them")
    assert await jobs(app_kit, made["id"]) == ["credit.score", "credit.grant"]
    row = await app_kit.mongo.collection("jobs").find_one({"type": "credit.grant"})
    assert row is not None
    assert (row["tenant_id"], row["user_id"]) == (underwriter.account.tenant_id, made["user_id"])


async def test_what_a_dead_request_left_in_the_outbox_is_relayed(
    api: httpx.AsyncClient, app_kit: StateKit, underwriter: Person
) -> None:
    made = [await apply_until(api, underwriter, "in_review") for _ in range(3)]
    body = {"application_ids": [each["id"] for each in made], "status": "approved"}
    await api.post("/applications/batch-update", json=body, headers=underwriter.headers)
    for each in made:  # what a worker does a little later
        await app_kit.jobs.relay(COLLECTION, each["id"])
        assert await jobs(app_kit, each["id"]) == ["credit.score", "credit.grant"]


async def test_an_application_with_a_key_is_made_once(api: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "apply-1"}
    first = await api.post("/applications", json=application(), headers=key)
    again = await api.post("/applications", json=application(), headers=key)
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    other = await api.post("/applications", json=application(terms_days=14), headers=key)
    assert problem(other) == (422, "idempotency_key_reused")
    assert (await api.get("/applications")).json()["items"] == [first.json()]


async def test_a_history_that_is_full_takes_decisions_and_nothing_else_and_fits_in_a_document(
    api: httpx.AsyncClient, app_kit: StateKit, underwriter: Person
) -> None:
    made = await apply(api)
    rows = app_kit.mongo.collection(COLLECTION)
    longest = {**ACTOR, "name": "\N{GRINNING FACE}" * 200}
    event = new_event("pending", longest, app_kit.clock.now(), note="\N{GRINNING FACE}" * NOTE_MAX_CHARACTERS)
    events = [{**event, "version": version} for version in range(1, HISTORY_MAX + 1)]
    await rows.update_one({"_id": made["id"]}, {"$set": {"history": events, "version": HISTORY_MAX}})
    full = {**made, "version": HISTORY_MAX}
    noted = await decide(api, underwriter, full, "pending", note="one more")
    assert (problem(noted), noted.json()["limit"]) == ((409, "history_full"), HISTORY_MAX)
    path = f"/applications/{made['id']}/assign"
    taken = await api.post(path, json={"version": HISTORY_MAX}, headers=underwriter.headers)
    assert problem(taken) == (409, "history_full")
    batch = {"application_ids": [made["id"]], "status": "pending", "note": "one more"}
    answer = await api.post("/applications/batch-update", json=batch, headers=underwriter.headers)
    assert answer.json()["results"][0]["result"] == "invalid_transition"
    begun = await decide(api, underwriter, full, "in_review")
    assert (begun.status_code, begun.json()["version"]) == (200, HISTORY_MAX + 1)
    stored = await rows.find_one({"_id": made["id"]})
    assert len(BSON.encode(stored)) < 4_000_000
    pages, cursor = 0, None
    while pages == 0 or cursor:
        params = {"limit": 100, **({"cursor": cursor} if cursor else {})}
        cursor = (await api.get(f"/applications/{made['id']}/history", params=params)).json()["next_cursor"]
        pages += 1
    assert pages == -(-(HISTORY_MAX + 1) // 100) <= -(-EVENTS_MAX // 100)


async def test_a_payment_takes_an_approved_application_on_with_its_transaction_or_not_at_all(
    api: httpx.AsyncClient, app_kit: StateKit, underwriter: Person
) -> None:
    made = await apply_until(api, underwriter, "approved")
    tenant_id = underwriter.account.tenant_id

    async def begin(session: ClientSession) -> dict[str, Any]:
        return await pay(app_kit, tenant_id, made["id"], "disbursing", ACTOR, session=session)

    async def fail(session: ClientSession) -> None:
        await begin(session)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await app_kit.transactions.run(fail)
    assert (await api.get(f"/applications/{made['id']}")).json() == made
    begun = await app_kit.transactions.run(begin)
    assert (begun["status"], begun["version"]) == ("disbursing", made["version"] + 1)
    by_hand = await decide(api, underwriter, {**made, "version": begun["version"]}, "disbursed")
    assert (problem(by_hand), by_hand.json()["allowed"]) == ((409, "invalid_transition"), [])
    with pytest.raises(InvalidTransitionError):
        await pay(app_kit, tenant_id, made["id"], "disbursing", ACTOR)
    paid = await pay(app_kit, tenant_id, made["id"], "disbursed", ACTOR, note="Paid")
    assert paid["status"] == "disbursed"
    statuses = [event["status"] for event in await history(api, made["id"])]
    assert statuses == ["pending", "in_review", "approved", "disbursing", "disbursed"]


async def test_totals_beyond_what_is_counted_each_time_are_counted_now_and_then(
    api: httpx.AsyncClient, underwriter: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "EXACT_MAX", 3)

    async def total(**params: Any) -> int:
        answer = await api.get("/applications", params={"limit": 1, **params}, headers=underwriter.headers)
        return int(answer.json()["total"])

    for expected in (0, 1, 2):
        assert await total() == expected
        await apply(api)
    await apply(api)
    assert await total() == 4
    await apply(api)
    assert await total() == 4, "counted anew although it was counted a moment ago"
    assert await total(limit=100) == 5, "a last page tells it by itself"
    assert await total(page=5) == 5, "less than what this page alone shows"
    assert await total(status="pending", limit=2) == 5
    assert await total(status="approved") == 0
