"""`PUT /applications/{id}` naming the version that was read, nobody competing: every write wins.

A reviewer adds a note: a history grows by one event a request. So that a request costs the same throughout,
each run of wrk has applications of its own, all of one age, of which each gets some dozens of notes. The
store calls of one: admission in Redis; in MongoDB the application without its history, and the update. The
floor has such applications as well, in a collection with the same indexes.
"""

import itertools
from collections import deque
from datetime import UTC, datetime
from string import Template

import orjson
from pymongo import IndexModel

from app.features.credit.documents import shown
from app.features.credit.store import COLLECTION
from app.state.feature_indexes import FEATURES
from bench.applications import VERSION, application_of, make_applications
from bench.bare import BareScripts
from bench.scenario import FloorCall, FloorStores, Load, Scenario, World

_PER_RUN = 256
_INDEXES_OF_KEYS = [IndexModel(f"idempotency.{name}", sparse=True) for name in ("key", "expires_at")]
_UNREAD = {"history": 0, "outbox": 0, "idempotency": 0}

_LUA = """
local PER_RUN, VERSION = $per_run, $version
-- An application is written by one connection at a time: it is taken when a request is made and given back
-- with the answer, which tells the version to name next. All answers of the floor are about one and the same;
-- it goes on with the last one.
local applications, free, last = {}, {}, nil
function prepare(rows)
   for i = 1, PER_RUN do
      local row = rows[run_number * PER_RUN + i]
      free[i] = {turn = 0, version = VERSION, path = "/api/v1/applications/" .. row[2],
         headers = {Authorization = "Bearer " .. row[1], ["Content-Type"] = "application/json"}}
      applications[row[2]] = free[i]
   end
end
function request()
   local application = table.remove(free, 1)
   if application then last = application else application = last end
   application.turn = application.turn + 1
   local body = string.format('{"status":"in_review","version":%d,"note":"Called them, %d"}',
      application.version, application.turn)
   return wrk.format("PUT", application.path, application.headers, body)
end
function answered(status, headers, body)
   local application = applications[body:match('"id":"(app_%w+)"')]
   if status == 200 and application then
      application.version = tonumber(body:match('"version":(%d+)'))
      free[#free + 1] = application
   end
   return status == 200
end
"""


async def _prepare(world: World) -> Load:
    documents = await make_applications(world, _PER_RUN * world.runs)
    users = itertools.cycle(world.users)
    return Load(
        rows=[(next(users).token, document["_id"]) for document in documents],
        answer=orjson.dumps(shown(documents[0])),
    )


async def _floor(stores: FloorStores) -> FloorCall:
    rows, now = stores.mongo["floor_applications"], datetime.now(UTC)
    made = [application_of("ten_floor", now) for _ in range(_PER_RUN)]
    await rows.create_indexes([*FEATURES[COLLECTION], *_INDEXES_OF_KEYS])
    await rows.insert_many(made)
    documents = deque((document["_id"], VERSION) for document in made)
    event, bare = made[0]["history"][-1], await BareScripts.ready(stores.redis)

    async def write() -> None:
        name, version = documents.popleft()
        await bare.admit()
        found = [{"$match": {"_id": name}}, {"$match": {"tenant_id": "ten_floor"}}, {"$project": _UNREAD}]
        await anext(rows.aggregate(found))
        await rows.update_one(
            {"_id": name, "tenant_id": "ten_floor", "version": version},
            {
                "$set": {"status": "in_review", "updated_at": now},
                "$inc": {"version": 1},
                "$push": {"history": {**event, "version": version + 1}},
            },
        )
        documents.append((name, version + 1))

    return write


SCENARIO = Scenario(
    name="optimistic_update",
    does="PUT /applications/{id} naming its version",
    floor_does="one script in Redis, one find and one update in MongoDB",
    bar=1.8,
    lua=Template(_LUA).substitute(per_run=_PER_RUN, version=VERSION),
    prepare=_prepare,
    floor=_floor,
)
