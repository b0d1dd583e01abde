"""Applications over HTTP, one rule at a time."""

from typing import Any

import httpx
import pytest

from app.core.ids import new_id
from app.features.credit.schemas import AMOUNT_MAX_MINOR
from app.state.kit import StateKit
from tests.features.answers import problem, wrong_fields
from tests.features.credit.applications import EUROS, application, apply, apply_until, decide, history
from tests.state.people import Person, colleague, new_person

IMPOSSIBLE: list[tuple[dict[str, Any], set[str]]] = [
    ({"company_name": ""}, {"company_name"}),
    ({"company_name": "x" * 201}, {"company_name"}),
    ({"company_name": "Marek\u0000GmbH"}, {"company_name"}),
    ({"company_name": {"$ne": None}}, {"company_name.$ne"}),
    ({"requested_amount": 5000}, {"requested_amount"}),
    ({"requested_amount": {**EUROS, "amount_minor": 0}}, {"requested_amount.amount_minor"}),
    ({"requested_amount": {**EUROS, "amount_minor": -5}}, {"requested_amount.amount_minor"}),
    ({"requested_amount": {**EUROS, "amount_minor": 12.5}}, {"requested_amount.amount_minor"}),
    (
        {"requested_amount": {**EUROS, "amount_minor": AMOUNT_MAX_MINOR + 1}},
        {"requested_amount.amount_minor"},
    ),
    ({"requested_amount": {**EUROS, "currency": "XYZ"}}, {"requested_amount.currency"}),
    ({"requested_amount": {**EUROS, "currency": "USD"}}, {"requested_amount.currency"}),
    (
        {
            "annual_revenue": {**EUROS, "currency": "JPY"},
            "requested_amount": {**EUROS, "currency": "USD"},
        },
        {"annual_revenue.currency", "requested_amount.currency"},
    ),
    ({"annual_revenue": {**EUROS, "amount_minor": -1}}, {"annual_revenue.amount_minor"}),
    ({"terms_days": 6}, {"terms_days"}),
    ({"terms_days": 181}, {"terms_days"}),
    ({"terms_days": "30"}, {"terms_days"}),
    ({"years_trading": -1}, {"years_trading"}),
    ({"years_trading": 501}, {"years_trading"}),
    ({"registration_number": "x"}, {"registration_number"}),
    ({"purpose": "x" * 1001}, {"purpose"}),
    ({"status": "approved", "version": 7}, {"status", "version"}),
]


MALFORMED: list[tuple[dict[str, Any], set[str]]] = [
    ({"status": "in_review"}, {"version"}),
    ({"status": "lost", "version": 1}, {"status"}),
    ({"status": "in_review", "version": 0}, {"version"}),
    ({"status": "in_review", "version": "1"}, {"version"}),
    ({"status": "in_review", "version": 1, "note": ""}, {"note"}),
    ({"status": "in_review", "version": 1, "note": "x" * 1001}, {"note"}),
    ({"status": "in_review", "version": 1, "terms_days": 7}, {"terms_days"}),
]


async def test_an_application_is_made_read_and_listed(api: httpx.AsyncClient, me: Person) -> None:
    body = application(
        registration_number="HRB 123456", annual_revenue=EUROS, years_trading=12, purpose="Spring season"
    )
    answer = await api.post("/applications", json=body)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert answer.headers["etag"] == '"1"'
    assert answer.headers["location"] == f"/api/v1/applications/{made['id']}"
    assert {name: made[name] for name in body} == body
    assert (made["status"], made["version"], made["reviewer"]) == ("pending", 1, None)
    assert made["user_id"] == me.account.id
    found = await api.get(f"/applications/{made['id']}")
    assert (found.json(), found.headers["etag"]) == (made, '"1"')
    listed = (await api.get("/applications")).json()
    assert listed == {"items": [made], "total": 1, "page": 1, "limit": 20, "pages": 1}
    (event,) = await history(api, made["id"])
    assert (event["status"], event["version"], event["at"]) == ("pending", 1, made["created_at"])
    assert event["actor"] == {"user_id": me.account.id, "name": me.account.name, "role": "shipper"}
    assert (event["note"], event["reviewer"]) == (None, None)


async def test_what_is_optional_may_be_left_out(api: httpx.AsyncClient) -> None:
    made = await apply(api)
    for name in ("registration_number", "annual_revenue", "years_trading", "purpose"):
        assert made[name] is None


async def test_what_can_not_be_applied_for_is_refused_by_every_field_and_changes_nothing(
    api: httpx.AsyncClient,
) -> None:
    for changes, fields in IMPOSSIBLE:
        assert wrong_fields(await api.post("/applications", json=application(**changes))) == fields
    assert (await api.get("/applications")).json()["total"] == 0


async def test_amounts_are_in_the_currency_of_the_tenant(
    api: httpx.AsyncClient, app_kit: StateKit, me: Person
) -> None:
    await app_kit.tenants.change(me.account.tenant_id, {"currency": "JPY"})
    assert wrong_fields(await api.post("/applications", json=application())) == {"requested_amount.currency"}
    await apply(api, requested_amount={"amount_minor": 900_000, "currency": "JPY"})


@pytest.mark.parametrize("verdict", ["approved", "rejected"])
async def test_a_reviewer_takes_an_application_to_a_decision(
    api: httpx.AsyncClient, underwriter: Person, verdict: str
) -> None:
    made = await apply(api)
    for version, status in enumerate(("in_review", verdict), start=2):
        answer = await decide(api, underwriter, made, status, note=f"now {status}")
        assert answer.status_code == 200, answer.text
        assert answer.headers["etag"] == f'"{version}"'
        made = answer.json()
        assert (made["status"], made["version"]) == (status, version)
        assert (await api.get(f"/applications/{made['id']}")).json() == made
    events = await history(api, made["id"])
    assert [event["status"] for event in events] == ["pending", "in_review", verdict]
    assert [event["version"] for event in events] == [1, 2, 3]
    assert [event["note"] for event in events] == [None, "now in_review", f"now {verdict}"]
    assert {event["actor"]["user_id"] for event in events[1:]} == {underwriter.account.id}
    assert events[-1]["at"] == made["updated_at"]


async def test_a_note_may_be_added_while_the_status_stays(
    api: httpx.AsyncClient, underwriter: Person
) -> None:
    for status in ("pending", "in_review", "approved", "rejected"):
        made = await apply_until(api, underwriter, status)
        noted = await decide(api, underwriter, made, status, note="Called them")
        assert (noted.status_code, noted.json()["version"]) == (200, made["version"] + 1)
        bare = await decide(api, underwriter, noted.json(), status)
        assert problem(bare) == (409, "invalid_transition")
        events = await history(api, made["id"])
        assert [event["note"] for event in events[-1:]] == ["Called them"]
        assert len(events) == noted.json()["version"]


async def test_conditions_are_checked_before_the_transition(
    api: httpx.AsyncClient, underwriter: Person
) -> None:
    made = await apply(api)
    path = f"/applications/{made['id']}"
    headers = underwriter.headers
    impossible = {"status": "disbursed", "version": 7}
    first = await api.put(path, json=impossible, headers={**headers, "If-Match": '"9"'})
    assert problem(first) == (412, "precondition_failed")
    second = await api.put(path, json=impossible, headers={**headers, "If-Match": '"1"'})
    assert (problem(second), second.json()["current_version"]) == ((409, "version_conflict"), 1)
    third = await api.put(path, json={**impossible, "version": 1}, headers=headers)
    assert problem(third) == (409, "invalid_transition")
    assert (third.json()["current_status"], third.json()["allowed"]) == ("pending", ["in_review"])
    assert (await api.get(path)).json() == made


async def test_a_decision_that_is_malformed_changes_nothing(
    api: httpx.AsyncClient, underwriter: Person
) -> None:
    made = await apply(api)
    path = f"/applications/{made['id']}"
    for body, fields in MALFORMED:
        assert wrong_fields(await api.put(path, json=body, headers=underwriter.headers)) == fields
    assert (await api.get(path)).json() == made


async def test_a_decision_that_is_sent_again_is_a_conflict_and_no_second_event(
    api: httpx.AsyncClient, underwriter: Person
) -> None:
    made = await apply(api)
    assert (await decide(api, underwriter, made, "in_review")).status_code == 200
    again = await decide(api, underwriter, made, "in_review")
    assert (problem(again), again.json()["current_version"]) == ((409, "version_conflict"), 2)
    assert again.headers["etag"] == '"2"'
    assert len(await history(api, made["id"])) == 2


async def test_an_admin_alone_decides_on_what_they_applied_for(api: httpx.AsyncClient, admin: Person) -> None:
    own = (await api.post("/applications", json=application(), headers=admin.headers)).json()
    decided = await decide(api, admin, own, "in_review")
    assert (decided.status_code, decided.json()["version"]) == (200, 2)


async def test_who_may_not_see_an_application_gets_what_one_that_never_existed_gives(
    api: httpx.AsyncClient, app_kit: StateKit, me: Person, underwriter: Person, admin: Person
) -> None:
    made = await apply(api)
    outsiders = [
        *[await colleague(app_kit, me, role) for role in ("shipper", "driver", "dispatcher")],
        await new_person(app_kit, role="admin"),
        await new_person(app_kit, role="underwriter"),
    ]
    for person in outsiders:
        headers = {**person.headers, "X-Request-ID": "the-same"}
        for tail in ("", "/history"):
            there, nowhere = [
                await api.get(f"/applications/{application_id}{tail}", headers=headers)
                for application_id in (made["id"], new_id("app"))
            ]
            assert (there.status_code, there.content) == (404, nowhere.content)
        listed = (await api.get("/applications", headers=headers)).json()
        assert (listed["items"], listed["total"], listed["pages"]) == ([], 0, 0)
    stranger = await decide(api, outsiders[-1], made, "in_review")
    assert problem(stranger) == (404, "not_found")
    for role_refused in (me, outsiders[0], outsiders[2]):
        assert problem(await decide(api, role_refused, made, "in_review")) == (403, "forbidden")
    for person in (underwriter, admin):
        assert (await api.get(f"/applications/{made['id']}", headers=person.headers)).json() == made
        assert (await api.get("/applications", headers=person.headers)).json()["items"] == [made]


async def test_drivers_and_underwriters_do_not_apply(
    api: httpx.AsyncClient, app_kit: StateKit, me: Person, underwriter: Person
) -> None:
    for person in (underwriter, await colleague(app_kit, me, "driver")):
        refused = await api.post("/applications", json=application(), headers=person.headers)
        assert problem(refused) == (403, "forbidden")


async def test_a_history_is_read_in_pages(api: httpx.AsyncClient, underwriter: Person) -> None:
    made = await apply(api)
    for number in range(6):
        made = (await decide(api, underwriter, made, "pending", note=f"n{number}")).json()
    path, seen, cursor = f"/applications/{made['id']}/history", [], None
    for _ in range(4):
        page = (await api.get(path, params={"limit": 2, **({"cursor": cursor} if cursor else {})})).json()
        seen += [event["version"] for event in page["items"]]
        cursor = page["next_cursor"]
    assert (seen, cursor) == ([1, 2, 3, 4, 5, 6, 7], None)
    assert wrong_fields(await api.get(path, params={"cursor": "nonsense"})) == {"cursor"}
