"""Who looks after an application."""

import httpx

from app.core.ids import new_id
from app.state.kit import StateKit
from tests.features.answers import problem, wrong_fields
from tests.features.credit.applications import apply, decide, history
from tests.state.people import Person, new_person


async def assign(
    api: httpx.AsyncClient, person: Person, application_id: str, version: int, **body: str
) -> httpx.Response:
    path = f"/applications/{application_id}/assign"
    return await api.post(path, json={"version": version, **body}, headers=person.headers)


async def test_a_reviewer_takes_an_application_on(api: httpx.AsyncClient, underwriter: Person) -> None:
    made = await apply(api)
    taken = await assign(api, underwriter, made["id"], 1)
    assert taken.status_code == 200, taken.text
    reviewer = {"user_id": underwriter.account.id, "name": underwriter.account.name}
    assert taken.json() == {
        **made, "reviewer": reviewer, "version": 2, "updated_at": taken.json()["updated_at"]
    }  # fmt: skip
    assert taken.headers["etag"] == '"2"'
    assert (await api.get(f"/applications/{made['id']}")).json() == taken.json()
    last = (await history(api, made["id"]))[-1]
    assert (last["status"], last["version"], last["reviewer"]) == ("pending", 2, reviewer)


async def test_an_admin_gives_it_to_a_colleague_and_an_underwriter_does_not(
    api: httpx.AsyncClient, underwriter: Person, admin: Person
) -> None:
    made = await apply(api)
    refused = await assign(api, underwriter, made["id"], 1, reviewer_id=admin.account.id)
    assert problem(refused) == (403, "forbidden")
    given = await assign(api, admin, made["id"], 1, reviewer_id=underwriter.account.id)
    assert given.json()["reviewer"]["user_id"] == underwriter.account.id
    last = (await history(api, made["id"]))[-1]
    assert last["actor"]["user_id"] == admin.account.id
    assert last["reviewer"]["user_id"] == underwriter.account.id
    again = await assign(api, admin, made["id"], 1, reviewer_id=underwriter.account.id)
    assert problem(again) == (409, "version_conflict")
    assert (await decide(api, admin, given.json(), "in_review")).status_code == 200


async def test_only_who_can_review_it_is_given_it(
    api: httpx.AsyncClient, app_kit: StateKit, me: Person, underwriter: Person, admin: Person
) -> None:
    made = await apply(api)
    gone = underwriter.account
    await app_kit.accounts.change(tenant_id=gone.tenant_id, user_id=gone.id, changes={"active": False})
    stranger = await new_person(app_kit, role="underwriter")
    for user_id in (me.account.id, gone.id, stranger.account.id, new_id("usr"), ""):
        refused = await assign(api, admin, made["id"], 1, reviewer_id=user_id)
        assert wrong_fields(refused) == {"reviewer_id"}
    assert problem(await assign(api, stranger, made["id"], 1)) == (404, "not_found")
    assert (await api.get(f"/applications/{made['id']}")).json() == made
