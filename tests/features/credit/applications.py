"""What tests apply for, and how they decide."""

from collections.abc import Sequence
from typing import Any

import httpx

from tests.state.people import Person

EUROS = {"amount_minor": 5_000_000, "currency": "EUR"}
WAYS: dict[str, Sequence[str]] = {
    "pending": (),
    "in_review": ("in_review",),
    "approved": ("in_review", "approved"),
    "rejected": ("in_review", "rejected"),
}
"""By which decisions an application gets there."""


def application(**changes: Any) -> dict[str, Any]:
    """An application that can be made."""
    return {"company_name": "Marek GmbH", "requested_amount": EUROS, "terms_days": 30, **changes}


async def apply(api: httpx.AsyncClient, **changes: Any) -> dict[str, Any]:
    answer = await api.post("/applications", json=application(**changes))
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def decide(
    api: httpx.AsyncClient, person: Person, made: dict[str, Any], status: str, **changes: Any
) -> httpx.Response:
    """Decide on an application as of the version that `made` shows, unless told otherwise."""
    body = {"status": status, "version": made["version"], **changes}
    return await api.put(f"/applications/{made['id']}", json=body, headers=person.headers)


async def apply_until(api: httpx.AsyncClient, person: Person, status: str, **changes: Any) -> dict[str, Any]:
    """Apply, and have `person` decide until the application is that."""
    made = await apply(api, **changes)
    for step in WAYS[status]:
        made = (await decide(api, person, made, step)).json()
    return made


async def history(api: httpx.AsyncClient, application_id: str, **options: Any) -> list[dict[str, Any]]:
    answer = await api.get(f"/applications/{application_id}/history", params={"limit": 100}, **options)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items
