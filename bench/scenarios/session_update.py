"""`PATCH /sessions/{id}` naming the version that was read, nobody competing: every write wins.

The store calls of one: admission, barrier and copy in Redis, and the update in MongoDB between the last two.
"""

import os
from collections import deque
from datetime import UTC, datetime, timedelta

from bench.bare import BareScripts
from bench.carts import make_carts
from bench.scenario import FloorCall, FloorStores, Load, Scenario, World

_FLOOR_DOCUMENTS = 256

_LUA = """
-- A cart is written by one connection at a time: it is taken when a request is made and given back with the
-- answer, which tells the version to name next. The first write of a run names none: earlier runs moved it.
-- One whose answer was an error is not given back; should all be gone, the run goes on with the last one.
local carts, free, last = {}, {}, nil
function prepare(rows)
   for i, row in ipairs(rows) do
      carts[row[2]] = {id = row[2], turn = 0, path = "/api/v1/sessions/" .. row[2],
         headers = {Authorization = "Bearer " .. row[1], ["Content-Type"] = "application/json"}}
      free[i] = carts[row[2]]
   end
end
function request()
   local cart = table.remove(free, 1)
   if cart then last = cart else cart = last; cart.version = nil end
   cart.turn = cart.turn + 1
   local version = cart.version and ',"version":' .. cart.version or ''
   local body = '{"data":{"step":' .. cart.turn % 1000 .. '}' .. version .. '}'
   return wrk.format("PATCH", cart.path, cart.headers, body)
end
function answered(status, headers, body)
   local cart = carts[body:match('"id":"(ses_%w+)"')]
   if status ~= 200 or not cart then return false end
   cart.version = body:match('"version":(%d+)')
   free[#free + 1] = cart
   return true
end
"""


async def _prepare(world: World) -> Load:
    carts = await make_carts(world, world.users)
    return Load(
        rows=[(user.token, session.id) for user, session in carts],
        answer=carts[0][1].body,
    )


async def _floor(stores: FloorStores) -> FloorCall:
    rows, copy, bare = stores.rows, stores.answer, await BareScripts.ready(stores.redis)
    data, ends_at = copy.decode(), datetime.now(UTC) + timedelta(days=1)
    documents = deque((f"floor_{os.getpid()}_{number}", 1) for number in range(_FLOOR_DOCUMENTS))
    owner = {"tenant_id": "ten_floor", "user_id": "usr_floor"}
    head = b'[1,1764000000000,604800,"cart"]'
    await rows.insert_many(
        [
            {"_id": name, **owner, "version": version, "data": data, "ttl_s": 600, "expires_at": ends_at}
            for name, version in documents
        ]
    )

    async def write() -> None:
        name, version = documents.popleft()
        await bare.admit()
        nonce = await bare.begin(name)
        wanted = {"_id": name, **owner, "version": version, "expires_at": {"$gt": datetime.now(UTC)}}
        changes = {
            "$set": {"data": data, "version": version + 1, "ttl_s": 600},
            "$max": {"expires_at": ends_at},
        }
        await rows.update_one(wanted, changes)
        await bare.settle(name, nonce, head, copy)
        documents.append((name, version + 1))

    return write


SCENARIO = Scenario(
    name="session_update",
    does="PATCH /sessions/{id} naming its version",
    floor_does="three scripts in Redis, one update in MongoDB",
    bar=1.8,
    lua=_LUA,
    prepare=_prepare,
    floor=_floor,
)
