"""`POST /chat`: a question to the built-in assistant in a conversation of its own, answered when both
messages are durable in MongoDB.

The store calls of one turn: admission and three appends to the run's stream in Redis; in MongoDB the
conversation with its run is inserted, the run ends, both messages are inserted, the conversation is settled.
"""

import os
from datetime import UTC, datetime
from itertools import count

import orjson

from bench.bare import BareScripts
from bench.scenario import FloorCall, FloorStores, Load, Scenario, World

_QUESTION = "help"

_LUA = """
local requests, n = {}, 0
function prepare(rows)
   for i, row in ipairs(rows) do
      requests[i] = wrk.format("POST", "/api/v1/chat",
         {Authorization = "Bearer " .. row[1], ["Content-Type"] = "application/json"}, '{"message":"help"}')
   end
end
function request()
   n = n % #requests + 1
   return requests[n]
end
"""


async def _prepare(world: World) -> Load:
    answer = {"session_id": "chat_" + "x" * 22, "message_id": "msg_" + "x" * 22, "reply": "x" * 320}
    return Load(rows=[(user.token,) for user in world.users], answer=orjson.dumps(answer))


async def _floor(stores: FloorStores) -> FloorCall:
    conversations, messages = stores.mongo["floor_conversations"], stores.mongo["floor_messages"]
    owner = {"tenant_id": "ten_floor", "user_id": "usr_floor"}
    numbers = count()
    await messages.create_index([("conversation_id", 1), ("turn", 1), ("n", 1)], unique=True)
    reply = orjson.loads(stores.answer)["reply"]
    delta = orjson.dumps({"text": reply[: len(reply) // 2]})
    bare = await BareScripts.ready(stores.redis)

    async def turn() -> None:
        name = f"floor_{os.getpid()}_{next(numbers)}"
        now = datetime.now(UTC)
        await bare.admit()
        run = {"state": "running", "epoch": 1, "question": _QUESTION, "lease_expires_at": now}
        await conversations.insert_one({"_id": name, **owner, "turn": 1, "run": run, "created_at": now})
        await bare.append(name, 1, "delta", delta)
        await bare.append(name, 2, "delta", delta)
        await conversations.update_one(
            {"_id": name, "run.epoch": 1}, {"$set": {"run.state": "done", "run.text": reply}}
        )
        await messages.insert_many(
            [
                {"_id": f"{name}_{n}", **owner, "conversation_id": name, "turn": 1, "n": n, "content": text}
                for n, text in enumerate((_QUESTION, reply))
            ]
        )
        await conversations.update_one({"_id": name, "run.epoch": 1}, {"$unset": {"run": ""}})
        await bare.append(name, 3, "end", b"{}")

    return turn


SCENARIO = Scenario(
    name="chat_turn",
    does="POST /chat, answered by the built-in assistant",
    floor_does="four scripts in Redis, four writes in MongoDB",
    bar=1.8,
    lua=_LUA,
    prepare=_prepare,
    floor=_floor,
)
