"""`/ledger`: the tenant's for its admins and underwriters, and to everybody else what is theirs."""

from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.features.ledger import sealing, service
from app.state.kit import StateKit
from tests.features.answers import problem, wrong_fields
from tests.features.ledger.money import claim, end_hold, hold
from tests.state.people import Person, colleague, new_person


async def items(api: httpx.AsyncClient, path: str, **options: Any) -> list[dict[str, Any]]:
    answer = await api.get(path, **options)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


@pytest.fixture
async def neighbour(app_kit: StateKit, me: Person) -> Person:
    """Another customer of the same tenant, with credit of their own."""
    person = await colleague(app_kit, me, "shipper")
    await service.grant(app_kit, claim(300, subject_id="app_n", **of(person)))
    return person


def of(person: Person) -> dict[str, str]:
    return {"tenant_id": person.account.tenant_id, "user_id": person.account.id}


@pytest.fixture
async def mine(app_kit: StateKit, me: Person) -> list[str]:
    """The ids of my four entries, oldest first."""
    await service.grant(app_kit, claim(10_000, subject_id="app_m", **of(me)))
    first, second = claim(700, **of(me)), claim(800, **of(me))
    await hold(app_kit, first)
    await end_hold(app_kit, "post", first)
    await hold(app_kit, second)
    kept = [f"hold:{first.subject_id}", f"post:{first.subject_id}", f"hold:{second.subject_id}"]
    return ["grant:app_m", *kept]


async def test_a_customer_sees_their_own_accounts_and_entries_and_nothing_else(
    api: httpx.AsyncClient, me: Person, mine: list[str], neighbour: Person
) -> None:
    entries = await items(api, "/ledger/entries")
    assert [entry["id"] for entry in entries] == mine[::-1]
    assert [posting["direction"] for posting in entries[1]["postings"]] == ["debit", "credit"]
    accounts = await items(api, "/ledger/accounts")
    assert {account["kind"] for account in accounts} == {"credit", "loan"}
    line = claim(**of(me)).credit_line.id
    shown = (await api.get(f"/ledger/accounts/{line}")).json()
    euros = {
        name: (shown[name]["amount_minor"], shown[name]["currency"])
        for name in ("balance", "held", "limit", "remaining")
    }
    assert euros == {
        "balance": (700, "EUR"), "held": (800, "EUR"), "limit": (10_000, "EUR"), "remaining": (8_500, "EUR")
    }  # fmt: skip
    for foreign in (claim(**of(neighbour)).credit_line, claim(**of(me)).freight_revenue):
        answer = await api.get(f"/ledger/accounts/{foreign.id}")
        assert problem(answer) == (404, "not_found")
        assert (
            await items(api, "/ledger/entries", params={"account": claim(**of(neighbour)).credit_line.id})
            == []
        )
    nothing = await api.get("/ledger/accounts/acc_nothing")
    assert nothing.json()["detail"] == answer.json()["detail"]
    assert problem(await api.get("/ledger/verify")) == (403, "forbidden")


async def test_underwriters_and_admins_see_all_of_their_tenant_and_nothing_of_another(
    *,
    api: httpx.AsyncClient,
    app: FastAPI,
    app_kit: StateKit,
    me: Person,
    mine: list[str],
    neighbour: Person,
    underwriter: Person,
    admin: Person,
) -> None:
    for staff in (underwriter, admin):
        entries = await items(api, "/ledger/entries", headers=staff.headers)
        assert {entry["id"] for entry in entries} == {*mine, "grant:app_n"}
        assert len(await items(api, "/ledger/accounts", headers=staff.headers)) == 6
        revenue = claim(**of(me)).freight_revenue.id
        shown = (await api.get(f"/ledger/accounts/{revenue}", headers=staff.headers)).json()
        assert (shown["balance"]["amount_minor"], shown["limit"], shown["remaining"]) == (-700, None, None)
        report = (await api.get("/ledger/verify", headers=staff.headers)).json()
        assert (report["ok"], report["entries"], report["unsealed"], report["first_bad"]) == (
            True,
            0,
            5,
            None,
        )
    stranger = await new_person(app_kit, role="admin")
    assert await items(api, "/ledger/entries", headers=stranger.headers) == []
    assert await items(api, "/ledger/accounts", headers=stranger.headers) == []
    answer = await api.get(f"/ledger/accounts/{revenue}", headers=stranger.headers)
    assert problem(answer) == (404, "not_found")


async def test_entries_are_found_by_account_kind_and_time_and_come_in_pages(
    api: httpx.AsyncClient, app_kit: StateKit, me: Person, mine: list[str], underwriter: Person
) -> None:
    line = claim(**of(me)).credit_line.id
    for headers in ({}, underwriter.headers):
        found = await items(api, "/ledger/entries", params={"account": line, "kind": "hold"}, headers=headers)
        assert [entry["id"] for entry in found] == [mine[3], mine[1]]
        found = await items(api, "/ledger/entries", params={"kind": "post"}, headers=headers)
        assert [entry["id"] for entry in found] == [mine[2]]
        seen: list[str] = []
        cursor = None
        for _ in range(2):
            params = {"limit": 2, **({"cursor": cursor} if cursor else {})}
            page = (await api.get("/ledger/entries", params=params, headers=headers)).json()
            seen += [entry["id"] for entry in page["items"]]
            cursor = page["next_cursor"]
        assert (seen, cursor) == (mine[::-1], None)
    newest = (await items(api, "/ledger/entries"))[0]["created_at"]
    assert mine[3] in [entry["id"] for entry in await items(api, "/ledger/entries", params={"since": newest})]
    assert mine[3] not in [
        entry["id"] for entry in await items(api, "/ledger/entries", params={"until": newest})
    ]
    assert await items(api, "/ledger/entries", params={"until": "0001-01-01T00:00:00+14:00"}) == []
    assert await items(api, "/ledger/entries", params={"since": "9999-12-31T23:59:59-14:00"}) == []
    assert len(await items(api, "/ledger/accounts", params={"kind": "credit", "limit": 1})) == 1


async def test_the_newest_hash_is_in_the_answer_once_it_is_sealed(
    api: httpx.AsyncClient, app_kit: StateKit, me: Person, mine: list[str], admin: Person
) -> None:
    assert {entry["seq"] for entry in await items(api, "/ledger/entries")} == {None}
    await sealing.seal(app_kit, me.account.tenant_id)
    entries = await items(api, "/ledger/entries")
    assert sorted(entry["seq"] for entry in entries) == [1, 2, 3, 4]
    report = (await api.get("/ledger/verify", headers=admin.headers)).json()
    assert report["head_hash"] == max(entries, key=lambda entry: entry["seq"])["hash"]
    assert (report["ok"], report["complete"], report["entries"], report["unsealed"]) == (True, True, 4, 0)


async def test_bad_questions_are_told_so(api: httpx.AsyncClient, mine: list[str], admin: Person) -> None:
    for path, params, field in (
        ("/ledger/entries", {"kind": "gift"}, "kind"),
        ("/ledger/entries", {"limit": "101"}, "limit"),
        ("/ledger/entries", {"cursor": "rubbish"}, "cursor"),
        ("/ledger/entries", {"since": "yesterday"}, "since"),
        ("/ledger/entries", {"until": "2026-01-31T10:00:00"}, "until"),
        ("/ledger/entries", {"account": "x" * 65}, "account"),
        ("/ledger/accounts", {"kind": "gift"}, "kind"),
        ("/ledger/accounts", {"cursor": "rubbish"}, "cursor"),
        ("/ledger/verify", {"after": "-1"}, "after"),
        ("/ledger/verify", {"after": str(2**60)}, "after"),
    ):
        answer = await api.get(path, params=params, headers=admin.headers)
        assert wrong_fields(answer) == {field}, path
    assert await items(api, "/ledger/entries", params={"account": "$where"}) == []
