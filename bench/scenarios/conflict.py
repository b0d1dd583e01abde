"""`PATCH /sessions/{id}` where all connections name the version they know of one document.

One of them wins a version; the others get `409 version_conflict` with the current one, and name that. The
commonest request is a refused one: admission, and another look at the copy once it is its turn. The copy is
dropped while somebody writes, so one in five asks MongoDB. One in 25 wins: barrier, update, copy. These are
the store calls that three replicas made under this load, by their metrics; the floor makes as many.
"""

import os
from itertools import count

from bench.bare import BareScripts
from bench.carts import DATA, make_carts
from bench.scenario import FloorCall, FloorStores, Load, Scenario, World

_FINDS, _WINS = 5, 25
"""One in so many requests reads MongoDB, and one in so many wins."""

_LUA = """
local path, headers, version
function prepare(rows)
   path, version = "/api/v1/sessions/" .. rows[1][2], tonumber(rows[1][3])
   headers = {Authorization = "Bearer " .. rows[1][1], ["Content-Type"] = "application/json"}
end
function request()
   return wrk.format("PATCH", path, headers, '{"data":{"step":2},"version":' .. version .. '}')
end
function answered(status, headers, body)
   local current = tonumber(body:match('"version":(%d+)') or body:match('"current_version":(%d+)'))
   if current and current > version then version = current end
   return (status == 200 or status == 409) and current ~= nil
end
"""

_REFUSAL = (
    b'{"type":"/problems/version_conflict","title":"Version conflict","status":409,"detail":"Somebody else '
    b'changed it; read it again and repeat your change.","code":"version_conflict","request_id":"'
    b'00000000000000000000000000000000","current_version":1}'
)


async def _prepare(world: World) -> Load:
    user, session = (await make_carts(world, world.users[:1]))[0]
    return Load(rows=[(user.token, session.id, str(session.version))], answer=_REFUSAL)


async def _floor(stores: FloorStores) -> FloorCall:
    rows, name, bare = stores.rows, f"floor_{os.getpid()}", await BareScripts.ready(stores.redis)
    wanted = {"_id": name, "tenant_id": "ten_floor", "user_id": "usr_floor"}
    await rows.insert_one({**wanted, "version": 1, "data": str(DATA), "ttl_s": 600})

    turn = count(1)

    async def refuse() -> None:
        number = next(turn)
        await bare.admit()
        await bare.look(name)
        if number % _FINDS == 0:
            await rows.find_one(wanted)
        if number % _WINS == 0:
            nonce = await bare.begin(name)
            await rows.update_one(wanted, {"$set": {"data": str(DATA), "version": number, "ttl_s": 600}})
            await bare.settle(name, nonce, b'[1,1764000000000,604800,"cart"]', str(DATA).encode())

    return refuse


SCENARIO = Scenario(
    name="conflict",
    does="PATCH /sessions/{id}, all connections on one document",
    floor_does="two scripts in Redis; one in 5 a find, one in 25 a write",
    bar=1.8,
    lua=_LUA,
    prepare=_prepare,
    floor=_floor,
)
