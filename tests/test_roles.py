"""`docs/roles.md` against the application: each route has a row, each cell is tried with a real request.

A new feature adds rows to the table and, if a route lets nobody in with an empty body, an entry to BODIES.
"""

import re
from pathlib import Path
from typing import get_args

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from app.state.kit import StateKit
from app.state.principals import Role
from tests.state.people import Person, ensure_indexes, new_person

COLUMNS = ("anonymous", "admin", "dispatcher", "underwriter", "driver", "shipper", "API key")
TABLE = Path(__file__).resolve().parent.parent / "docs" / "roles.md"
BODIES = {"POST /api/v1/auth/refresh": lambda person: {"refresh_token": person.refresh_token}}
"""Routes that check a credential in the body: what to send, given a person who is logged in."""

_HEAD = "| route | " + " | ".join(COLUMNS) + " |"
_ROW = re.compile(r"\| `(?P<route>[A-Z]+ /\S*)` \| (?P<cells>.+) \|")


def documented() -> dict[str, dict[str, str]]:
    rows: dict[str, dict[str, str]] = {}
    for line in TABLE.read_text().splitlines():
        if line.startswith("| route "):
            assert line == _HEAD
        found = _ROW.fullmatch(line)
        if found is not None:
            assert found["route"] not in rows, f"two rows for {found['route']}"
            rows[found["route"]] = dict(zip(COLUMNS, found["cells"].split(" | "), strict=True))
    return rows


def served(app: FastAPI) -> set[str]:
    return {
        f"{method} {context.path_format}"
        for context in iter_route_contexts(list(app.routes))
        for method in context.methods or ()
        if method not in {"HEAD", "OPTIONS"}
    }


async def headers_of(column: str, person: Person, client: httpx.AsyncClient) -> dict[str, str]:
    if column == "anonymous":
        return {}
    if column == "API key":
        made = await client.post("/api/v1/api-keys", json={"name": "roles"}, headers=person.headers)
        return {"X-API-Key": made.json()["key"]}
    return person.headers


def cell_of(answer: httpx.Response) -> str:
    assert answer.status_code < 500, answer.text
    assert answer.status_code != 429, answer.text
    return str(answer.status_code) if answer.status_code in {401, 403} else "yes"


def test_every_column_is_a_role_or_a_credential() -> None:
    assert set(get_args(Role)) == set(COLUMNS) - {"anonymous", "API key"}


def test_every_route_has_a_row_and_every_row_a_route(app: FastAPI) -> None:
    assert set(documented()) == served(app)


@pytest.mark.settings(limit_anonymous="100000/minute")
@pytest.mark.parametrize("column", COLUMNS)
async def test_every_cell_is_what_a_request_gets(
    app: FastAPI, client: httpx.AsyncClient, column: str
) -> None:
    kit: StateKit = app.state.kit
    await ensure_indexes(kit)
    role = "admin" if column in {"anonymous", "API key"} else column
    expected = {route: cells[column] for route, cells in documented().items()}
    actual = {}
    for route in expected:
        method, _, template = route.partition(" ")
        person = await new_person(kit, role=role)
        body = BODIES.get(route, lambda _: {})(person) if method in {"POST", "PUT", "PATCH"} else None
        headers = await headers_of(column, person, client)
        client.cookies.clear()
        path = re.sub(r"\{\w+\}", "nothing", template)
        actual[route] = cell_of(await client.request(method, path, json=body, headers=headers))
    assert actual == expected
