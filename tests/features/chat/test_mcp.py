"""The tools over MCP, with the official client."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import httpx2
import orjson
import pytest
from fastapi import FastAPI
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

from app.state.kit import StateKit
from tests.state.people import Person, new_person

URL = "http://localhost/mcp"
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
ACCEPT = {"Accept": "application/json, text/event-stream"}


@pytest.fixture
def connect(app: FastAPI) -> Callable[[dict[str, str]], Any]:
    """Return a function that opens an MCP client with these headers."""

    @asynccontextmanager
    async def open_client(headers: dict[str, str]) -> AsyncIterator[Client]:
        transport = httpx2.ASGITransport(app)
        async with (
            httpx2.AsyncClient(transport=transport, headers=headers) as http,
            Client(streamable_http_client(URL, http_client=http)) as client,
        ):
            yield client

    return open_client


def text_of(result: Any) -> Any:
    return orjson.loads(result.content[0].text)


async def test_the_official_client_lists_and_calls_tools_as_the_token_s_user(
    connect: Any, me: Person, booking_of: Callable[[Person], Awaitable[dict[str, Any]]]
) -> None:
    mine = await booking_of(me)
    async with connect(me.headers) as client:
        tools = (await client.list_tools()).tools
        assert {tool.name for tool in tools} == {
            "list_bookings",
            "get_booking",
            "quote",
            "my_addresses",
            "application_status",
            "my_credit",
        }
        assert all(tool.input_schema["type"] == "object" and tool.description for tool in tools)
        listed = text_of(await client.call_tool("list_bookings", {"status": "booked"}))
        assert [row["number"] for row in listed["bookings"]] == [mine["number"]]
        priced = await client.call_tool(
            "quote", {"origin": "Hamburg", "destination": "Turin", "weight_kg": 8400.0}
        )
        assert text_of(priced)["price"]["currency"] == "EUR"


async def test_an_api_key_is_a_credential_and_sees_what_its_maker_sees(
    connect: Any,
    api: httpx.AsyncClient,
    me: Person,
    app_kit: StateKit,
    booking_of: Callable[[Person], Awaitable[dict[str, Any]]],
) -> None:
    theirs = await booking_of(await new_person(app_kit, role="shipper"))
    key = (await api.post("/api-keys", json={"name": "mcp"})).json()["key"]
    async with connect({"X-API-Key": key}) as client:
        for wanted in (theirs["id"], theirs["number"]):
            result = await client.call_tool("get_booking", {"booking": wanted})
            assert result.is_error
            assert text_of(result)["error"] == "not_found"


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("list_bookings", {"tenant_id": "ten_x"}),
        ("get_booking", {"booking": {"$ne": None}}),
        ("get_booking", {}),
        ("my_addresses", {"limit": -1}),
        ("quote", {"origin": "Hamburg", "destination": "Nowhereabouts", "weight_kg": 1.0}),
    ],
)
async def test_wrong_arguments_are_named_in_a_result_that_is_an_error(
    connect: Any, me: Person, tool: str, arguments: dict[str, Any]
) -> None:
    async with connect(me.headers) as client:
        result = await client.call_tool(tool, arguments)
        assert result.is_error
        assert text_of(result)["error"] == "validation_failed"
        assert text_of(result)["errors"]


def test_a_replica_starts_without_the_sdk() -> None:
    names = "import sys, app.main; print(*sys.modules)"
    started = subprocess.run([sys.executable, "-c", names], capture_output=True, text=True, check=True)
    assert not {"mcp", "mcp_types", "httpx2"} & set(started.stdout.split())


async def test_first_requests_at_once_wait_for_one_server_which_none_of_them_can_cancel(
    app: FastAPI, client: httpx.AsyncClient, me: Person
) -> None:
    async def ask() -> int:
        answer = await client.post(URL, json=INITIALIZE, headers={**ACCEPT, **me.headers})
        return answer.status_code

    starting = [asyncio.create_task(app.state.mcp.started()) for _ in range(2)]
    await asyncio.sleep(0)  # both are waiting
    starting[0].cancel()
    assert await asyncio.gather(*(ask() for _ in range(10))) == [200] * 10
    assert starting[0].cancelled()
    assert await app.state.mcp.started() is await starting[1]


async def test_a_server_that_could_not_be_loaded_is_loaded_when_it_is_asked_again(
    app: FastAPI, client: httpx.AsyncClient, me: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "app.features.chat.mcp_server", None)
        with pytest.raises(ImportError):
            await app.state.mcp.started()
    answer = await client.post(URL, json=INITIALIZE, headers={**ACCEPT, **me.headers})
    assert answer.status_code == 200


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer nonsense"}, {"X-API-Key": "key_x.y"}])
async def test_without_a_living_credential_it_is_401_and_a_problem(
    client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    answer = await client.post(URL, json=INITIALIZE, headers={**ACCEPT, **headers})
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.settings(server_names=("freight.example",), public_url="https://cargo.example")
async def test_hosts_that_are_not_ours_are_misdirected(client: httpx.AsyncClient, me: Person) -> None:
    for host, status in (
        ("evil.example", 421),
        ("localhost:8080", 200),
        ("127.0.0.1:1", 200),
        ("freight.example", 200),
        ("cargo.example:443", 200),
        ("[::1]:80", 200),
    ):
        headers = {**ACCEPT, **me.headers, "Host": host}
        answer = await client.post(URL, json=INITIALIZE, headers=headers)
        assert answer.status_code == status, host


async def test_there_is_nothing_to_get_or_delete(client: httpx.AsyncClient, me: Person) -> None:
    for method in ("GET", "DELETE"):
        answer = await client.request(method, URL, headers=me.headers)
        assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"jsonrpc": "2.0"}', b"null", b'"x"', b"{}" * 100])
async def test_what_is_no_message_is_a_4xx_of_the_sdk_and_never_a_500(
    client: httpx.AsyncClient, me: Person, body: bytes
) -> None:
    headers = {**ACCEPT, **me.headers, "Content-Type": "application/json"}
    answer = await client.post(URL, content=body, headers=headers)
    assert 400 <= answer.status_code < 500
