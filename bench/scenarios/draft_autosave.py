"""`PATCH /bookings/drafts/{id}` as a form saves itself: one field, a `client_id` and a `seq`, all saves new.

Each draft belongs to one tab, which sends its next save when the last one is answered. The store calls of one
are those of `session_update`: admission, barrier and copy in Redis, the update in MongoDB between the last
two.
"""

import asyncio
from typing import Any

from app.features.bookings.forms import TYPE, Draft, Form, Save
from app.http.responses import encode
from bench.scenario import FloorCall, FloorStores, Load, Scenario, World
from bench.scenarios import session_update

_FORM: dict[str, Any] = {
    "pickup": {"contact_name": "Ada Lovelace", "city": "Hamburg", "country": "DE"},
    "delivery": {"contact_name": "Grace Hopper", "city": "Rotterdam", "country": "NL"},
    "cargo": {"description": "Machine parts on pallets", "weight_kg": 8400, "pieces": 12},
    "notes": "Ring at the gate.",
}

_LUA = """
-- A draft is saved by one connection at a time: it is taken when a request is made and given back with the
-- answer. Numbers begin above those of earlier runs: a save that was seen before saves nothing. The floor
-- answers with one and the same draft.
local drafts, free, last, first = {}, {}, nil, os.time() * 1000
function prepare(rows)
   for i, row in ipairs(rows) do
      drafts[row[2]] = {turn = 0, path = "/api/v1/bookings/drafts/" .. row[2],
         headers = {Authorization = "Bearer " .. row[1], ["Content-Type"] = "application/json"}}
      free[i] = drafts[row[2]]
   end
end
function request()
   local draft = table.remove(free, 1)
   if draft then last = draft else draft = last end
   draft.turn = draft.turn + 1
   local seq = first + draft.turn
   local body = string.format('{"data":{"cargo":{"weight_kg":%d}},"step":2,"client_id":"tab-1","seq":%.0f}',
      1000 + draft.turn % 1000, seq)
   return wrk.format("PATCH", draft.path, draft.headers, body)
end
function answered(status, headers, body)
   local draft = drafts[body:match('"id":"(ses_%w+)"')]
   if status ~= 200 or not draft or not body:find('"applied":true', 1, true) then return false end
   free[#free + 1] = draft
   return true
end
"""


async def _prepare(world: World) -> Load:
    data = Form().with_save(Save(_FORM, step=1), world.kit.clock.now()).session_data
    drafts = await asyncio.gather(
        *(world.kit.sessions.create(user.owner, TYPE, data) for user in world.users)
    )
    rows = [(user.token, draft.id) for user, draft in zip(world.users, drafts, strict=True)]
    shown = Draft.from_body(drafts[0].body).shown(applied=True)
    return Load(rows=rows, answer=encode(shown))


async def _floor(stores: FloorStores) -> FloorCall:
    return await session_update.SCENARIO.floor(stores)


SCENARIO = Scenario(
    name="draft_autosave",
    does="PATCH /bookings/drafts/{id}, one field of the form",
    floor_does="three scripts in Redis, one update in MongoDB",
    bar=1.8,
    lua=_LUA,
    prepare=_prepare,
    floor=_floor,
)
