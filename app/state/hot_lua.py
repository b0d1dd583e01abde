"""The scripts of `hot`. Each is atomic in Redis and uses Redis' own clock.

A copy is a hash {g, due, head, body, owner, epoch, tier, proof} or a tombstone {g, gone}; it counts only
while its `g` is the current generation. A guard is a hash {g, lease, contended, w:<nonce> = until when that
writer counts}; its `g` is the generation in which the lease was given or the last barrier raised, and nothing
is filled in a later one. `READ` and `STORE` are functions that other scripts build on.
"""

from app.state.redis import Script

NOW = """
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
    NOW
    + _WRITERS
    + """
local function hot_read(copy, guard, generation, now, nonce, lease_ms, claim_ms)
  local c = redis.call('HMGET', copy, 'g', 'due', 'head', 'body', 'owner', 'epoch', 'tier', 'proof', 'gone')
  if generation and c[1] == generation then
    if c[9] then return {state = 'gone', leased = 0, touch = 0, head = '', body = ''} end
    local touch = 0
    if claim_ms > 0 and c[2] ~= '0' and now >= tonumber(c[2]) then
      redis.call('HSET', copy, 'due', now + claim_ms)
      touch = 1
    end
    return {state = 'hit', leased = 0, touch = touch, head = c[3], body = c[4],
      owner = c[5], epoch = c[6], tier = c[7], proof = c[8]}
  end
  local leased = 0
  if generation and not live_writers(guard, now) then
    if redis.call('HGET', guard, 'g') ~= generation then redis.call('DEL', guard) end
    if redis.call('HSETNX', guard, 'lease', nonce) == 1 then
      redis.call('HSET', guard, 'g', generation)
      redis.call('PEXPIRE', guard, lease_ms)
      leased = 1
    end
  end
  return {state = 'miss', leased = leased, touch = 0, head = '', body = ''}
end

local function hot_reply(r)
  return {r.state, r.leased, r.touch, r.head, r.body}
end
"""
)
"""`hot_read` returns a table; `hot_reply` turns it into what `HotRead.from_reply` reads: {state, leased,
touch, head, body}. With `claim_ms` 0 the reader is not one who extends, and claims nothing.
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
return hot_reply(hot_read(KEYS[2], KEYS[3], generation, now_ms(), ARGV[1], ARGV[2], tonumber(ARGV[3])))
""",
)

SWAP = Script(
    "hot.swap",
    NOW
    + STORE
    + """
local generation, c = redis.call('GET', KEYS[1]), redis.call('HMGET', KEYS[2], 'g', 'head')
if not generation or c[1] ~= generation or c[2] ~= ARGV[1] then return 0 end
hot_store(KEYS[2], generation, now_ms(), 'fill', 2)
return 1
""",
)

FILL = Script(
    "hot.fill",
    NOW
    + STORE
    + """
local generation, guard = redis.call('GET', KEYS[1]), redis.call('HMGET', KEYS[3], 'lease', 'g')
if guard[1] ~= ARGV[1] or guard[2] ~= generation then return 0 end
redis.call('DEL', KEYS[3])
hot_store(KEYS[2], generation, now_ms(), ARGV[2], 3)
return 1
""",
)

BEGIN = Script(
    "hot.begin",
    NOW
    + _WRITERS
    + """
local now, generation = now_ms(), redis.call('GET', KEYS[1])
redis.call('HDEL', KEYS[3], 'lease')
local c = redis.call('HMGET', KEYS[2], 'g', 'head', 'body', 'gone')
redis.call('DEL', KEYS[2])
if live_writers(KEYS[3], now) then redis.call('HSET', KEYS[3], 'contended', 1) end
redis.call('HSET', KEYS[3], 'w:' .. ARGV[1], now + ARGV[2], 'g', generation or '')
redis.call('PEXPIRE', KEYS[3], ARGV[2])
if not generation or c[1] ~= generation then return {'miss', 0, 0, '', ''} end
if c[4] then return {'gone', 0, 0, '', ''} end
return {'hit', 0, 0, c[2], c[3]}
""",
)

SETTLE = Script(
    "hot.settle",
    NOW
    + _WRITERS
    + STORE
    + """
local now, generation = now_ms(), redis.call('GET', KEYS[1])
local mine = redis.call('HDEL', KEYS[3], 'w:' .. ARGV[1]) == 1
local others = live_writers(KEYS[3], now)
if not mine then
  redis.call('HDEL', KEYS[3], 'lease')
  if others then redis.call('HSET', KEYS[3], 'contended', 1) end
  redis.call('DEL', KEYS[2])
  return 0
end
local guard, mode = redis.call('HMGET', KEYS[3], 'contended', 'g'), ARGV[2]
if not others then redis.call('DEL', KEYS[3]) end
if others or guard[1] or guard[2] ~= generation then mode = 'drop' end
hot_store(KEYS[2], generation, now, mode, 3)
return 1
""",
)

BEAT = Script(
    "hot.beat",
    """
local server = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local generation = redis.call('GET', KEYS[1])
if ARGV[3] == '1' or not generation or string.sub(generation, 1, #server) ~= server then
  redis.call('SET', KEYS[1], server .. ':' .. ARGV[1], 'PX', ARGV[2])
else
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
for i = 4, #ARGV, 2 do redis.call('HINCRBY', KEYS[2], ARGV[i], ARGV[i + 1]) end
return 1
""",
)
