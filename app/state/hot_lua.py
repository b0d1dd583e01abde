"""The scripts of `hot`. Each is atomic in Redis and uses Redis' own clock.

A copy is a hash {g, due, head, body, owner, epoch, tier, proof} or a tombstone {g, gone}; it counts only
while its `g` is the current generation. A guard is a hash {lease, contended, w:<nonce> = until when that
writer counts}. `READ` and `STORE` are functions that other scripts build on.
"""

from app.state import keys
from app.state.redis import Script

TTLS = (keys.HOT_LEASE_TTL_MS, keys.HOT_WRITER_TTL_MS, keys.HOT_TOUCH_CLAIM_MS)
"""What every script takes after its nonce."""

_NOW = """
local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
"""

_WRITERS = """
local function live_writers(guard, now)
  local live, entries = false, redis.call('HGETALL', guard)
  for i = 1, #entries, 2 do
    if string.sub(entries[i], 1, 2) == 'w:' then
      if tonumber(entries[i + 1]) > now then live = true else redis.call('HDEL', guard, entries[i]) end
    end
  end
  return live
end
"""

READ = (
    _NOW
    + _WRITERS
    + """
local function hot_read(copy, guard, generation, now, nonce, lease_ms, claim_ms)
  local c = redis.call('HMGET', copy, 'g', 'due', 'head', 'body', 'owner', 'epoch', 'tier', 'proof', 'gone')
  if generation and c[1] == generation then
    if c[9] then return {state = 'gone', leased = 0, touch = 0, head = '', body = ''} end
    local touch = 0
    if c[2] ~= '0' and now >= tonumber(c[2]) then
      redis.call('HSET', copy, 'due', now + claim_ms)
      touch = 1
    end
    return {state = 'hit', leased = 0, touch = touch, head = c[3], body = c[4],
      owner = c[5], epoch = c[6], tier = c[7], proof = c[8]}
  end
  local leased = 0
  if generation and not live_writers(guard, now) and redis.call('HSETNX', guard, 'lease', nonce) == 1 then
    redis.call('PEXPIRE', guard, lease_ms)
    leased = 1
  end
  return {state = 'miss', leased = leased, touch = 0, head = '', body = ''}
end

local function hot_reply(r)
  return {r.state, r.leased, r.touch, r.head, r.body}
end
"""
)
"""`hot_read` returns a table; `hot_reply` turns it into what `HotRead.from_reply` reads: {state, leased,
touch, head, body}.
"""

STORE = """
local function hot_store(copy, generation, now, mode, first)
  redis.call('DEL', copy)
  if not generation or mode == 'drop' then return end
  if mode == 'bury' then
    redis.call('HSET', copy, 'g', generation, 'gone', 1)
  else
    local due = tonumber(ARGV[first + 1])
    if due > 0 then due = now + due end
    redis.call('HSET', copy, 'g', generation, 'due', due, 'head', ARGV[first + 2], 'body', ARGV[first + 3],
      'owner', ARGV[first + 4], 'epoch', ARGV[first + 5], 'tier', ARGV[first + 6], 'proof', ARGV[first + 7])
  end
  redis.call('PEXPIRE', copy, ARGV[first])
end
"""

READ_ONE = Script(
    "hot.read",
    READ
    + """
local generation = redis.call('GET', KEYS[1])
return hot_reply(hot_read(KEYS[2], KEYS[3], generation, now_ms(), ARGV[1], ARGV[2], tonumber(ARGV[4])))
""",
)

FILL = Script(
    "hot.fill",
    _NOW
    + STORE
    + """
if redis.call('HGET', KEYS[3], 'lease') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[3])
hot_store(KEYS[2], redis.call('GET', KEYS[1]), now_ms(), ARGV[2], 3)
return 1
""",
)

BEGIN = Script(
    "hot.begin",
    READ
    + """
local now = now_ms()
redis.call('HDEL', KEYS[3], 'lease')
local c = redis.call('HMGET', KEYS[2], 'g', 'head', 'body', 'gone')
redis.call('DEL', KEYS[2])
if live_writers(KEYS[3], now) then redis.call('HSET', KEYS[3], 'contended', 1) end
redis.call('HSET', KEYS[3], 'w:' .. ARGV[1], now + ARGV[3])
redis.call('PEXPIRE', KEYS[3], ARGV[3])
local generation = redis.call('GET', KEYS[1])
if not generation or c[1] ~= generation then return {'miss', 0, 0, '', ''} end
if c[4] then return {'gone', 0, 0, '', ''} end
return {'hit', 0, 0, c[2], c[3]}
""",
)

SETTLE = Script(
    "hot.settle",
    _NOW
    + _WRITERS
    + STORE
    + """
local now = now_ms()
if redis.call('HDEL', KEYS[3], 'w:' .. ARGV[1]) == 0 then
  redis.call('HDEL', KEYS[3], 'lease')
  redis.call('DEL', KEYS[2])
  return 0
end
local generation, mode = redis.call('GET', KEYS[1]), ARGV[2]
local others, contended = live_writers(KEYS[3], now), redis.call('HEXISTS', KEYS[3], 'contended') == 1
if not others then redis.call('DEL', KEYS[3]) end
if mode == 'fill' and (others or contended) then mode = 'drop' end
hot_store(KEYS[2], generation, now, mode, 3)
return 1
""",
)

BEAT = Script(
    "hot.beat",
    """
local generation = redis.call('GET', KEYS[1])
if ARGV[3] == '1' or not generation then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
else
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
for i = 4, #ARGV, 2 do redis.call('HINCRBY', KEYS[2], ARGV[i], ARGV[i + 1]) end
return 1
""",
)
