"""Which jobs to look at next: two sorted sets a type in Redis, of what MongoDB's `jobs` say is waiting.

The record is MongoDB, and the judge: whoever takes a job from here asks there whether it may be claimed. So
this index may be wrong, late or gone and no job is lost or run twice for it; it makes finding the next job
cost the same whether ten or a hundred thousand wait.

- `ready`: due; score = priority first, then when it was due. `later`: score = when to look.
- `take` moves what has become due from `later` to `ready`, then moves the best of the types asked for to
  `later`, HIDDEN_S away: if the taker dies, or can't reach MongoDB, they come up again by themselves.
- `add` publishes on one channel, and idle workers wake up.
- `whole` is a marker that a rebuild sets: an emptied Redis lacks it (`job_reconcile`).

Members are `priority:id`. Cost: a script each, O(log waiting) a job. Times are handed in, from the clock that
follows MongoDB's: Redis' own is not asked, since run-at moments are the record's. When Redis is gone:
StoreUnavailableError; see `jobs` and `job_claims` for what is done then. No TTLs: what is finished or unknown
is removed by whoever takes it.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.core.moments import to_milliseconds
from app.state import keys
from app.state.mongo import Document
from app.state.redis import UNAVAILABLE, RedisStore, Script

_log = logging.getLogger(__name__)

INDEXED: Document = {"type": 1, "priority": 1, "run_at": 1, "slice": 1}
"""The fields of a row that the index is made of, as a projection."""
HIDDEN_S = 10.0
"""How long what was taken stays out of sight; well above the time it takes to claim it in MongoDB."""
_RANK = 10**13
"""Above every moment in milliseconds; times PRIORITY_MAX still exact in a double."""
_MOVED_AT_ONCE = 200
_RECONNECT_S = 0.5

_ADD = Script(
    "jobs.index_add",
    f"""
local now, only_new, RANK = tonumber(ARGV[1]), ARGV[2] == '1', {_RANK}
local added = 0
for i = 1, #KEYS / 2 do
  local ready, later = KEYS[2 * i - 1], KEYS[2 * i]
  local priority, id, at = tonumber(ARGV[3 * i]), ARGV[3 * i + 1], tonumber(ARGV[3 * i + 2])
  local member = priority .. ':' .. id
  if not (only_new and (redis.call('ZSCORE', ready, member) or redis.call('ZSCORE', later, member))) then
    added = added + 1
    redis.call('SADD', '{keys.JOBS_TYPES}', string.sub(ready, {len(keys.jobs_ready("")) + 1}))
    if at <= now then
      redis.call('ZREM', later, member)
      redis.call('ZADD', ready, at - priority * RANK, member)
    else
      redis.call('ZREM', ready, member)
      redis.call('ZADD', later, at, member)
    end
  end
end
if added > 0 then redis.call('PUBLISH', '{keys.JOBS_WAKE}', added) end
return added
""",
)

_TAKE = Script(
    "jobs.index_take",
    f"""
local now, hidden_until, limit, RANK = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), {_RANK}
local room, taken, next_at = {{}}, {{}}, nil
for i = 1, #KEYS / 2 do
  local ready, later = KEYS[2 * i - 1], KEYS[2 * i]
  room[i] = tonumber(ARGV[3 + i])
  local due = redis.call('ZRANGE', later, '-inf', now, 'BYSCORE', 'LIMIT', 0, {_MOVED_AT_ONCE}, 'WITHSCORES')
  for n = 1, #due, 2 do
    local priority = tonumber(string.match(due[n], '^[^:]+'))
    redis.call('ZADD', ready, tonumber(due[n + 1]) - priority * RANK, due[n])
    redis.call('ZREM', later, due[n])
  end
  local first = redis.call('ZRANGE', later, 0, 0, 'WITHSCORES')
  if first[2] and (not next_at or tonumber(first[2]) < next_at) then next_at = tonumber(first[2]) end
end
for _ = 1, limit do
  local best, score
  for i = 1, #room do
    if room[i] > 0 then
      local head = redis.call('ZRANGE', KEYS[2 * i - 1], 0, 0, 'WITHSCORES')
      if head[2] and (not score or tonumber(head[2]) < score) then best, score = i, tonumber(head[2]) end
    end
  end
  if not best then break end
  local member = redis.call('ZRANGE', KEYS[2 * best - 1], 0, 0)[1]
  redis.call('ZREM', KEYS[2 * best - 1], member)
  redis.call('ZADD', KEYS[2 * best], hidden_until, member)
  room[best] = room[best] - 1
  taken[#taken + 1] = {{best, string.match(member, '^([^:]+):(.*)$')}}
end
return {{next_at and string.format('%.0f', next_at - now) or '', taken}}
""",
)

_REMOVE = Script(
    "jobs.index_remove",
    """
for i = 1, #KEYS / 2 do
  redis.call('ZREM', KEYS[2 * i - 1], ARGV[i])
  redis.call('ZREM', KEYS[2 * i], ARGV[i])
end
""",
)

_DEPTHS = Script(
    "jobs.index_depths",
    f"""
local now, RANK, found = tonumber(ARGV[1]), {_RANK}, {{}}
for i = 1, #KEYS / 2 do
  local oldest = nil
  for _, member in ipairs(redis.call('ZRANGE', KEYS[2 * i - 1], 0, 0, 'WITHSCORES')) do oldest = member end
  local waited = 0
  if oldest then waited = now - (tonumber(oldest) % RANK) end
  found[i] = {{redis.call('ZCARD', KEYS[2 * i - 1]), redis.call('ZCARD', KEYS[2 * i]), math.floor(waited)}}
end
return found
""",
)


@dataclass(frozen=True, slots=True)
class Taken:
    """What to try, each {_id, type, priority}, in that order; `next_in_s`: when more may be due (None: nobody
    knows).
    """

    entries: Sequence[Document]
    next_in_s: float | None


@dataclass(frozen=True, slots=True)
class Depth:
    """How many jobs of a type are due, how many are to be looked at later, and how long the first waits."""

    ready: int
    later: int
    oldest_s: float


class JobIndex:
    """The index of waiting jobs. `now_ms` in every call is MongoDB's time as this process knows it."""

    def __init__(self, redis: RedisStore) -> None:
        """Does nothing yet."""
        self._redis = redis

    async def add(self, rows: Sequence[Document], *, now_ms: int, only_new: bool = False) -> None:
        """Put waiting jobs in, each once, and wake idle workers; `only_new` leaves alone what is there.

        Each of `rows` has _id, type, priority and run_at.
        """
        if not rows:
            return
        places = [key for row in rows for key in (keys.jobs_ready(row["type"]), keys.jobs_later(row["type"]))]
        arguments = [
            part for row in rows for part in (row["priority"], row["_id"], to_milliseconds(row["run_at"]))
        ]
        await self._redis.run(_ADD, places, (now_ms, int(only_new), *arguments))

    async def take(self, room: Mapping[str, int], *, limit: int, now_ms: int) -> Taken:
        """Take at most `limit` jobs that are due, of each type at most as many as it has room for."""
        types = list(room)
        places = [key for job_type in types for key in (keys.jobs_ready(job_type), keys.jobs_later(job_type))]
        next_in_ms, taken = await self._redis.run(
            _TAKE,
            places,
            (now_ms, now_ms + round(HIDDEN_S * 1000), limit, *(room[job_type] for job_type in types)),
        )
        next_in_s = max(0.0, float(next_in_ms) / 1000) if next_in_ms else None
        entries = [
            {"_id": job_id.decode(), "type": types[number - 1], "priority": int(priority)}
            for number, priority, job_id in taken
        ]
        return Taken(entries, next_in_s)

    async def remove(self, rows: Iterable[Document]) -> None:
        """Take jobs out: they are claimed, held or over. Each of `rows` has _id, type and priority."""
        members = [(row["type"], f"{row['priority']}:{row['_id']}") for row in rows]
        if members:
            places = [key for each, _ in members for key in (keys.jobs_ready(each), keys.jobs_later(each))]
            await self._redis.run(_REMOVE, places, [member for _, member in members])

    async def is_whole(self) -> bool:
        """Say whether everything that waits was put in since Redis was last empty."""
        async with self._redis.guard("jobs.index_whole"):
            return bool(await self._redis.client.exists(keys.JOBS_WHOLE))

    async def mark_whole(self) -> None:
        """Say that everything that waits was put in."""
        async with self._redis.guard("jobs.index_mark"):
            await self._redis.client.set(keys.JOBS_WHOLE, 1)

    async def depths(self, *, now_ms: int) -> dict[str, Depth]:
        """Return how long the queue of each type is that was ever enqueued; two round trips."""
        async with self._redis.guard("jobs.index_types"):
            known: Any = await self._redis.client.smembers(keys.JOBS_TYPES)
        types = sorted(name.decode() for name in known)
        places = [key for job_type in types for key in (keys.jobs_ready(job_type), keys.jobs_later(job_type))]
        found = await self._redis.run(_DEPTHS, places, (now_ms,)) if places else []
        return {
            job_type: Depth(ready, later, max(0, waited_ms) / 1000)
            for job_type, (ready, later, waited_ms) in zip(types, found, strict=True)
        }

    async def listen(self, wake: Callable[[], None]) -> None:
        """Call `wake` whenever jobs were added, and whenever some may have been missed. Does not return.

        Holds a connection of its own; without Redis it tries again every _RECONNECT_S.
        """
        while True:
            try:
                async with self._redis.client.pubsub(ignore_subscribe_messages=True) as channel:
                    await channel.subscribe(keys.JOBS_WAKE)
                    wake()
                    async for _ in channel.listen():
                        wake()
            except UNAVAILABLE as error:
                _log.debug("job_wakeups_interrupted", extra={"reason": str(error)})
            await asyncio.sleep(_RECONNECT_S)
