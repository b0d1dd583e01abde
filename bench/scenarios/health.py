"""`GET /health`: the way through Nginx and the edge, and nothing else."""

import urllib.request

from bench.scenario import FloorCall, FloorStores, Load, Scenario, World

_LUA = """
local get
function prepare(rows) get = wrk.format("GET", "/health") end
function request() return get end
"""


async def _prepare(world: World) -> Load:
    with urllib.request.urlopen(f"{world.url}/health", timeout=5) as response:  # noqa: ASYNC210, S310  # our own, before anything is measured
        return Load(rows=[], answer=response.read())


async def _floor(_: FloorStores) -> FloorCall:
    async def nothing() -> None:
        return

    return nothing


SCENARIO = Scenario(
    name="health",
    does="GET /health",
    floor_does="no store call",
    bar=None,
    lua=_LUA,
    prepare=_prepare,
    floor=_floor,
)
