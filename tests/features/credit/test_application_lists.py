"""Pages of applications: by number, in an order that leaves no doubt, with how many there are."""

from typing import Any

import httpx

from tests.features.answers import wrong_fields
from tests.features.credit.applications import apply, apply_until
from tests.state.people import Person

NAMES = ("beta", "Alpha", "GAMMA", "alpha", "Émile")


IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [
    ({"page": 0}, "page"),
    ({"page": 1001}, "page"),
    ({"page": "first"}, "page"),
    ({"limit": 0}, "limit"),
    ({"limit": 101}, "limit"),
    ({"status": "lost"}, "status"),
    ({"sort": "updated_at"}, "sort"),
    ({"sort": "$where"}, "sort"),
    ({"reviewer": ""}, "reviewer"),
    ({"reviewer": "x" * 65}, "reviewer"),
]


async def items(api: httpx.AsyncClient, person: Person, **params: Any) -> list[dict[str, Any]]:
    answer = await api.get("/applications", params=params, headers=person.headers)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


async def test_pages_follow_each_other_without_gap_or_repetition(
    api: httpx.AsyncClient, underwriter: Person
) -> None:
    made = [(await apply(api))["id"] for _ in range(7)]
    for sort in ("created_at", "requested_amount", "company_name"):
        for sign, order in (("", 1), ("-", -1)):
            seen = []
            for page in (1, 2, 3, 4):
                answer = await api.get(
                    "/applications",
                    params={"page": page, "limit": 3, "sort": f"{sign}{sort}"},
                    headers=underwriter.headers,
                )
                body = answer.json()
                assert (body["total"], body["page"], body["limit"], body["pages"]) == (7, page, 3, 3)
                seen += [row["id"] for row in body["items"]]
            assert sorted(seen) == sorted(made)
            if sort != "created_at":  # equal throughout: the id decides
                assert seen == sorted(made)[::order]


async def test_lists_are_sorted(api: httpx.AsyncClient, underwriter: Person) -> None:
    for number, name in enumerate(NAMES):
        amount = {"amount_minor": (number * 7) % 5 * 1000 + 1000, "currency": "EUR"}
        await apply(api, company_name=name, requested_amount=amount)
    for person in (underwriter, None):
        headers = {} if person is None else person.headers

        async def values(sort: str | None, name: str, headers: dict[str, str] = headers) -> list[Any]:
            params = {} if sort is None else {"sort": sort}
            answer = await api.get("/applications", params=params, headers=headers)
            return [row[name] for row in answer.json()["items"]]

        newest = await values(None, "company_name")
        assert newest == list(reversed(NAMES)) == (await values("created_at", "company_name"))[::-1]
        amounts = await values("requested_amount", "requested_amount")
        assert [row["amount_minor"] for row in amounts] == [1000, 2000, 3000, 4000, 5000]
        assert await values("-requested_amount", "requested_amount") == amounts[::-1]
        names = [name.casefold() for name in await values("company_name", "company_name")]
        assert names == sorted(names)


async def test_lists_are_narrowed_by_status_and_reviewer(
    api: httpx.AsyncClient, underwriter: Person, admin: Person
) -> None:
    made = {status: await apply_until(api, underwriter, status) for status in ("pending", "in_review")}
    taken = await apply(api)
    await api.post(f"/applications/{taken['id']}/assign", json={"version": 1}, headers=admin.headers)

    async def ids(person: Person, **params: Any) -> set[str]:
        return {row["id"] for row in await items(api, person, **params)}

    everything = {made["pending"]["id"], made["in_review"]["id"], taken["id"]}
    assert await ids(underwriter) == everything
    assert await ids(underwriter, status="pending") == everything - {made["in_review"]["id"]}
    assert await ids(underwriter, status="rejected") == set()
    assert await ids(underwriter, reviewer="none") == everything - {taken["id"]}
    assert await ids(underwriter, reviewer="none", status="pending") == {made["pending"]["id"]}
    assert await ids(admin, reviewer="me") == {taken["id"]}
    assert await ids(underwriter, reviewer="me") == set()
    assert await ids(underwriter, reviewer=admin.account.id) == {taken["id"]}
    assert await ids(underwriter, reviewer="usr_nobody") == set()


async def test_everybody_else_lists_their_own(
    api: httpx.AsyncClient, me: Person, admin: Person, underwriter: Person
) -> None:
    mine = await apply(api)
    theirs = (await api.post("/applications", json={**_bare(mine)}, headers=admin.headers)).json()
    assert await items(api, me) == [mine]
    assert await items(api, me, status="pending") == [mine]
    assert await items(api, me, reviewer="none", status="pending") == [mine]
    assert await items(api, underwriter) == [theirs, mine]


async def test_a_list_that_can_not_be_is_refused(api: httpx.AsyncClient) -> None:
    for params, field in IMPOSSIBLE:
        refused = await api.get("/applications", params=params)
        assert {name.split(".")[-1] for name in wrong_fields(refused)} == {field}


def _bare(made: dict[str, Any]) -> dict[str, Any]:
    return {name: made[name] for name in ("company_name", "requested_amount", "terms_days")}
