"""`GET /sessions/{id}` of a hot session: token, rate limit and session in one round trip to Redis."""

from bench.carts import make_carts
from bench.scenario import FloorCall, FloorStores, Load, Scenario, World

_LUA = """
local requests, turn = {}, 0
function prepare(rows)
   for i, row in ipairs(rows) do
      requests[i] = wrk.format("GET", "/api/v1/sessions/" .. row[2], {Authorization = "Bearer " .. row[1]})
   end
end
function request()
   turn = turn % #requests + 1
   return requests[turn]
end
"""


async def _prepare(world: World) -> Load:
    carts = await make_carts(world, world.users)
    return Load(rows=[(user.token, session.id) for user, session in carts], answer=carts[0][1].body)


async def _floor(stores: FloorStores) -> FloorCall:
    await stores.redis.set("floor:session", stores.answer)

    async def get() -> None:
        await stores.redis.get("floor:session")

    return get


SCENARIO = Scenario(
    name="session_read",
    does="GET /sessions/{id}, a session of one's own",
    floor_does="one Redis GET",
    bar=2.5,
    lua=_LUA,
    prepare=_prepare,
    floor=_floor,
)
