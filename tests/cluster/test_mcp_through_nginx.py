"""The official MCP client through Nginx and three replicas, any of which answers any call."""

import asyncio
from collections import Counter
from typing import Any

import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

from tests.cluster.counts import full, show
from tests.cluster.world import World, expect

CALLS = full(1000, 100)
CLIENTS = 5
TOOLS = {"list_bookings", "get_booking", "quote", "my_addresses", "application_status", "my_credit"}


@pytest.mark.timeout(900)
async def test_tools_are_listed_and_called_without_a_failure_by_all_replicas_in_turn(world: World) -> None:
    person = await world.person()
    replicas: Counter[str] = Counter()

    async def note(response: httpx2.Response) -> None:
        replicas[response.headers["x-replica"]] += 1

    async def one_client(calls: int) -> None:
        headers = {"Authorization": f"Bearer {person.token}"}
        hooks: dict[str, list[Any]] = {"response": [note]}
        async with (
            httpx2.AsyncClient(headers=headers, event_hooks=hooks, timeout=30) as http,
            Client(streamable_http_client(f"{world.cluster.url}/mcp", http_client=http)) as client,
        ):
            for number in range(calls):
                if number % 10 == 0:
                    assert {tool.name for tool in (await client.list_tools()).tools} == TOOLS
                result = await client.call_tool(*(("my_addresses", {}), ("list_bookings", {}))[number % 2])
                assert not result.is_error, result

    async with asyncio.TaskGroup() as tasks:
        for _ in range(CLIENTS):
            tasks.create_task(one_client(CALLS // CLIENTS))
    assert set(replicas) == {"replica-1", "replica-2", "replica-3"}
    show(f"{CALLS} calls by {CLIENTS} clients: {dict(replicas)}")


async def test_without_a_token_nginx_passes_on_the_401(world: World) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    reply = await world.nginx.ask("POST", "/mcp", body=body)
    assert expect(401, reply)["code"] == "unauthenticated"
