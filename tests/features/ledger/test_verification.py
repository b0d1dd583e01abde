"""A ledger that proves itself: one byte that is changed in the store is found, and named."""

import asyncio
import hashlib
import json
from datetime import timedelta
from typing import Any

import httpx
import pytest

from app.features.ledger import sealing, service, verification
from app.features.ledger.verification import verify
from app.state.kit import StateKit
from tests.features.ledger.money import TENANT, claim, end_hold, hold
from tests.state.people import Person

ENTRIES = 12


@pytest.fixture
async def ledger(kit: StateKit) -> StateKit:
    """A dozen sealed entries of every kind but payouts, and one that is not sealed."""
    await service.grant(kit, claim(100_000, subject_id="app_a"))
    prices = [claim(700 + n) for n in range(6)]
    for price in prices:
        await hold(kit, price)
    for price in prices[:3]:
        await end_hold(kit, "post", price)
    for price in prices[3:5]:
        await end_hold(kit, "void", price)
    assert await sealing.seal(kit, TENANT) == ENTRIES
    await hold(kit, claim(50))
    return kit


async def entry(kit: StateKit, seq: int) -> dict[str, Any]:
    row = await kit.mongo.collection("ledger_transfers").find_one({"seal.seq": seq})
    assert row is not None
    return dict(row)


async def change(kit: StateKit, seq: int, changes: dict[str, Any], *, operator: str = "$set") -> None:
    await kit.mongo.collection("ledger_transfers").update_one({"seal.seq": seq}, {operator: changes})


async def test_a_ledger_nobody_touched_is_right(ledger: StateKit) -> None:
    report = await verify(ledger, TENANT)
    assert report.first_bad is None
    assert (report.ok, report.complete, report.entries, report.unsealed) == (True, True, ENTRIES, 1)
    assert report.accounts == 4
    assert report.head_hash == (await entry(ledger, ENTRIES))["seal"]["hash"]


async def test_what_is_sealed_while_it_looks_is_counted_once(
    ledger: StateKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk = verification._Verification._walk

    async def walk_and_be_overtaken(looking: verification._Verification) -> None:
        await walk(looking)
        await sealing.seal(ledger, TENANT)

    monkeypatch.setattr(verification._Verification, "_walk", walk_and_be_overtaken)
    report = await verify(ledger, TENANT)
    assert (report.ok, report.complete, report.entries, report.unsealed) == (True, True, ENTRIES + 1, 0)
    assert report.head_hash == (await entry(ledger, ENTRIES + 1))["seal"]["hash"]


async def test_a_ledger_that_has_not_begun_is_right(kit: StateKit) -> None:
    report = await verify(kit, "ten_new")
    assert (report.ok, report.complete, report.entries, report.unsealed, report.accounts) == (
        True,
        True,
        0,
        0,
        0,
    )


STRUCTURAL: list[dict[str, Any]] = [
    {"postings.0.amount_minor": 700.5},
    {"postings": "gone"},
    {"account_ids": []},
    {"raises": [{"account_id": "acc_x", "account_kind": "loan", "amount_minor": 1}]},
    {"pending_id": "hold:x"},
    {"note": "an innocent addition"},
    {"seal.note": "another one"},
    {"unsealed": {"chain": TENANT, "since": None}},
    {"created_at": "2026-01-31T10:00:00.000Z"},
]


async def test_any_change_of_the_shape_of_an_entry_is_located(ledger: StateKit) -> None:
    transfers = ledger.mongo.collection("ledger_transfers")
    original = await entry(ledger, 5)
    for changes in STRUCTURAL:
        await transfers.update_one({"_id": original["_id"]}, {"$set": changes})
        report = await verify(ledger, TENANT)
        assert report.first_bad is not None, changes
        found = (report.first_bad.why, report.first_bad.seq, report.first_bad.id)
        assert found == ("content_changed", 5, original["_id"]), changes
        assert (report.ok, report.entries, report.through) == (False, 4, 4)
        await transfers.replace_one({"_id": original["_id"]}, original)


async def test_every_byte_of_an_entry_counts(ledger: StateKit) -> None:
    """Each piece of text and each number of it, one character or one unit off."""
    transfers = ledger.mongo.collection("ledger_transfers")
    original = await entry(ledger, 8)

    def places(value: Any, path: str) -> list[tuple[str, Any]]:
        if isinstance(value, dict):
            return [leaf for name in value for leaf in places(value[name], f"{path}.{name}".lstrip("."))]
        if isinstance(value, list):
            return [leaf for n, item in enumerate(value) for leaf in places(item, f"{path}.{n}")]
        if isinstance(value, str):
            return [(path, chr(ord(value[0]) ^ 1) + value[1:])]
        if isinstance(value, int):
            return [(path, value + 1)]
        return [(path, value + timedelta(milliseconds=1))]

    leaves = [leaf for leaf in places(original, "") if leaf[0] not in {"_id", "seal.chain", "seal.seq"}]
    assert len(leaves) > 15
    for path, other in leaves:
        await transfers.update_one({"_id": original["_id"]}, {"$set": {path: other}})
        report = await verify(ledger, TENANT)
        assert report.first_bad is not None, path
        assert (report.first_bad.seq, report.first_bad.why) == (8, "content_changed"), path
        await transfers.replace_one({"_id": original["_id"]}, original)
    assert (await verify(ledger, TENANT)).ok


async def test_an_entry_that_is_gone_or_moved_is_missed_where_it_was(ledger: StateKit) -> None:
    gone = await entry(ledger, 4)
    transfers = ledger.mongo.collection("ledger_transfers")
    elsewhere = [{**gone, "seal": {**gone["seal"], **place}} for place in ({"seq": 99}, {"chain": "x"})]
    for changed in (*elsewhere, None):
        await transfers.delete_one({"_id": gone["_id"]})
        if changed is not None:
            await transfers.insert_one(changed)
        report = await verify(ledger, TENANT)
        assert report.first_bad is not None
        assert (report.first_bad.why, report.first_bad.seq, report.first_bad.id) == ("missing", 4, None)


async def test_entries_that_changed_places_are_told(ledger: StateKit) -> None:
    transfers = ledger.mongo.collection("ledger_transfers")
    first, second = await entry(ledger, 6), await entry(ledger, 7)
    await transfers.delete_many({"_id": {"$in": [first["_id"], second["_id"]]}})
    for row, place in ((first, 7), (second, 6)):
        moved = {**row, "seal": {**row["seal"], "seq": place}}
        moved["seal"]["hash"] = verification.hash_of(moved)
        await transfers.insert_one(moved)
    report = await verify(ledger, TENANT)
    assert report.first_bad is not None
    assert (report.first_bad.why, report.first_bad.seq) == ("out_of_order", 6)


async def test_a_head_that_was_moved_is_told(ledger: StateKit) -> None:
    chains = ledger.mongo.collection("ledger_chains")
    original = await chains.find_one({"_id": TENANT})
    assert original is not None
    changes: list[tuple[dict[str, Any], str]] = [
        ({"seq": ENTRIES - 1}, "head_mismatch"),
        ({"seq": -1}, "head_mismatch"),
        ({"seq": "many"}, "head_mismatch"),
        ({"seq": None, "hash": None}, "head_mismatch"),
        ({"hash": "0" * 64}, "head_mismatch"),
        ({"seq": ENTRIES + 3}, "missing"),
    ]
    for changed, why in changes:
        await chains.replace_one({"_id": TENANT}, {**original, **changed})
        report = await verify(ledger, TENANT)
        assert report.first_bad is not None, changed
        assert report.first_bad.why == why, changed
    await chains.delete_one({"_id": TENANT})
    report = await verify(ledger, TENANT)
    assert report.first_bad is not None
    assert report.first_bad.why == "head_mismatch"


async def test_an_account_that_is_not_the_sum_of_its_transfers_is_named(ledger: StateKit) -> None:
    line = claim().credit_line.id
    accounts = ledger.mongo.collection("ledger_accounts")
    for name in ("balance_minor", "held_minor", "limit_minor", "remaining_minor"):
        await accounts.update_one({"_id": line}, {"$inc": {name: 1}})
        await _names_the_account(ledger, line, name)
        await accounts.update_one({"_id": line}, {"$inc": {name: -1}})
    original = await accounts.find_one({"_id": line})
    assert original is not None
    for name, other in (("user_id", "usr_b"), ("owner_id", "usr_b"), ("kind", "loan"), ("currency", "USD")):
        await accounts.update_one({"_id": line}, {"$set": {name: other}})
        await _names_the_account(ledger, line, "opened" if name != "user_id" else name)
        await accounts.replace_one({"_id": line}, original)
    assert (await verify(ledger, TENANT)).ok


async def _names_the_account(kit: StateKit, line: str, name: str) -> None:
    report = await verify(kit, TENANT)
    assert report.first_bad is not None
    assert (report.first_bad.why, report.first_bad.id, report.first_bad.seq) == (
        "account_mismatch",
        line,
        None,
    )
    assert name in report.first_bad.detail
    assert report.entries == ENTRIES


async def test_an_account_that_is_gone_and_an_unsealed_amount_that_was_changed_are_told(
    ledger: StateKit,
) -> None:
    waiting = {"unsealed.chain": TENANT}
    transfers = ledger.mongo.collection("ledger_transfers")
    await transfers.update_one(
        waiting, {"$inc": {"postings.0.amount_minor": 1, "postings.1.amount_minor": 1}}
    )
    report = await verify(ledger, TENANT)
    assert report.first_bad is not None
    assert report.first_bad.why == "account_mismatch"
    await transfers.update_one(
        waiting, {"$inc": {"postings.0.amount_minor": -1, "postings.1.amount_minor": -1}}
    )
    revenue = claim().freight_revenue.id
    await ledger.mongo.collection("ledger_accounts").delete_one({"_id": revenue})
    report = await verify(ledger, TENANT)
    assert report.first_bad is not None
    assert (report.first_bad.why, report.first_bad.id) == ("account_mismatch", revenue)


async def test_there_is_no_false_alarm_while_transfers_and_sealing_go_on(
    kit: StateKit, other_kit: StateKit
) -> None:
    await service.grant(kit, claim(10**9, subject_id="app_a"))
    stop = asyncio.Event()

    async def move() -> None:
        while not stop.is_set():
            price = claim(3)
            await hold(other_kit, price)
            await end_hold(other_kit, "post", price)

    async def seal() -> None:
        while not stop.is_set():
            await sealing.seal(other_kit, TENANT)
            await asyncio.sleep(0.05)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(move())
        tasks.create_task(seal())
        reports = []
        while sum(report.entries for report in reports) < 200 or len(reports) < 10:
            reports.append(await verify(kit, TENANT))
        stop.set()
    assert [report.first_bad for report in reports] == [None] * len(reports)
    assert all(report.complete for report in reports)


async def test_a_chain_too_long_for_one_answer_is_looked_at_in_parts(
    ledger: StateKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "BUDGET_S", 0.0)
    report = await verify(ledger, TENANT)
    assert (report.ok, report.complete, report.through) == (True, False, 0)
    monkeypatch.undo()
    report = await verify(ledger, TENANT, after=7)
    assert (report.ok, report.complete, report.entries, report.through) == (True, False, 5, 12)
    await change(ledger, 9, {"currency": "USD"})
    report = await verify(ledger, TENANT, after=7)
    assert report.first_bad is not None
    assert (report.first_bad.seq, report.entries) == (9, 1)
    report = await verify(ledger, TENANT, after=70)
    assert report.first_bad is not None
    assert report.first_bad.why == "missing"


async def test_the_chain_can_be_checked_from_outside_with_what_the_api_answers(
    api: httpx.AsyncClient, app_kit: StateKit, underwriter: Person, me: Person
) -> None:
    """By nothing but what `seals` documents: SHA-256, sorted JSON, and the tenant's id."""
    tenant_id = me.account.tenant_id
    mine = {"tenant_id": tenant_id, "user_id": me.account.id}
    await service.grant(app_kit, claim(9_000, subject_id="app_a", **mine))
    for _ in range(4):
        await hold(app_kit, claim(1_000, **mine))
    await sealing.seal(app_kit, tenant_id)
    answer = await api.get("/ledger/entries", headers=underwriter.headers)
    entries = sorted(answer.json()["items"], key=lambda item: item["seq"])
    assert [item["seq"] for item in entries] == [1, 2, 3, 4, 5]
    before = hashlib.sha256(f"cargoflow-ledger:{tenant_id}".encode()).hexdigest()
    for item in entries:
        assert item["prev_hash"] == before
        before = item.pop("hash")
        text = json.dumps(item, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert hashlib.sha256(text.encode()).hexdigest() == before
    assert (await api.get("/ledger/verify", headers=underwriter.headers)).json()["head_hash"] == before
