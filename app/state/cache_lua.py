"""The scripts of `cache`. Each is atomic in Redis and uses Redis' own clock.

An entry and each of its owners (a tenant, a user of it, or everybody) is a hash. In all of them:
- `g:<kind>`: the generation of that kind, a random value. In an owner's also `g:*`, for every kind.
- `w:<kind>:<nonce>`, `w:*:<nonce>`: somebody is changing what these are made of, until that time in ms.
In an entry's also: `body`; `stamp`, the generations it was loaded under; `fresh_until`, `stale_until`;
`lease`, `lease_until`, `lease_stamp`: who loads it, until when, under which generations; `retry_at`: not
before then, after a load that failed.

To invalidate is to remove a generation. What was loaded under it, or is being loaded, is never believed: an
entry carries the stamp its lease was given under. The next reader makes a new generation, unless a writer is
at work; hence one that is lost (evicted, expired) costs entries and revives none. The stamp also holds the
generation of `hot`, so no entry is believed either after an outage of Redis in which an invalidation may have
gone by.
"""

from app.state.hot_lua import NOW
from app.state.redis import Script

_STAMP = """
local function stamp_of(kind)
  local parts = {redis.call('GET', KEYS[1])}
  if not parts[1] then return nil end
  for i = 2, #KEYS do
    local g = redis.call('HMGET', KEYS[i], 'g:' .. kind, i == 2 and 'g:' .. kind or 'g:*')
    if not g[1] or not g[2] then return nil end
    parts[i] = g[1] .. g[2]
  end
  return table.concat(parts, ' ')
end
"""
"""KEYS: the generation of `hot`, the entry, its owners."""

READ = Script(
    "cache.read",
    NOW
    + _STAMP
    + """
local function is_written(hash, kind, now)
  local found, of_kind = false, 'w:' .. kind .. ':'
  for _, field in ipairs(redis.call('HKEYS', hash)) do
    if string.sub(field, 1, 4) == 'w:*:' or string.sub(field, 1, #of_kind) == of_kind then
      if tonumber(redis.call('HGET', hash, field)) > now then found = true
      else redis.call('HDEL', hash, field) end
    end
  end
  return found
end

local kind, now, nonce = ARGV[1], now_ms(), ARGV[2]
local stamp = stamp_of(kind)
local e = redis.call('HMGET', KEYS[2], 'stamp', 'fresh_until', 'stale_until', 'retry_at', 'body')
local stale = ''
if stamp and e[1] == stamp then
  if tonumber(e[2]) > now then return {'hit', e[5], ''} end
  if tonumber(e[3]) > now then stale = e[5] end
  if stale ~= '' and e[4] and tonumber(e[4]) > now then return {'stale', stale, ''} end
end
if not stamp then
  for i = 2, #KEYS do
    if is_written(KEYS[i], kind, now) then return {'barred', '', ''} end
  end
  for i = 2, #KEYS do
    redis.call('HSETNX', KEYS[i], 'g:' .. kind, nonce)
    if i > 2 then redis.call('HSETNX', KEYS[i], 'g:*', nonce) end
  end
  stamp = stamp_of(kind)
  if not stamp then return {'barred', '', ''} end
end
local l = redis.call('HMGET', KEYS[2], 'lease', 'lease_until', 'lease_stamp')
if l[1] and tonumber(l[2]) > now and l[3] == stamp then return {'wait', '', l[1]} end
redis.call('HSET', KEYS[2], 'lease', nonce, 'lease_until', now + ARGV[3], 'lease_stamp', stamp)
for i = 2, #KEYS do redis.call('PEXPIRE', KEYS[i], ARGV[4]) end
return {'load', stale, nonce}
""",
)
"""ARGV: kind, nonce, lease in ms, TTL in ms. Returns {state, body, lease}: `hit`; `stale`, since a load
failed a moment ago; `load`, with a stale body if there is one; `wait` for that lease; `barred`: load, and
keep nothing.
"""

FILL = Script(
    "cache.fill",
    NOW
    + """
local l = redis.call('HMGET', KEYS[1], 'lease', 'lease_stamp')
if l[1] ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], 'lease', 'lease_until', 'lease_stamp', 'retry_at')
local fresh_until = now_ms() + ARGV[2]
redis.call('HSET', KEYS[1], 'body', ARGV[4], 'stamp', l[2], 'fresh_until', fresh_until,
  'stale_until', fresh_until + ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[2] + ARGV[3])
return 1
""",
)
"""KEYS: the entry. ARGV: lease, fresh for ms, stale for ms, body. Returns whether it was kept: under the
stamp of its lease, so if that was invalidated meanwhile, nobody believes it.
"""

RELEASE = Script(
    "cache.release",
    NOW
    + """
if redis.call('HGET', KEYS[1], 'lease') ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[1], 'lease', 'lease_until', 'lease_stamp')
if ARGV[3] == 'failed' then redis.call('HSET', KEYS[1], 'retry_at', now_ms() + ARGV[4]) end
if ARGV[3] == 'gone' then
  redis.call('HDEL', KEYS[1], 'body', 'stamp', 'fresh_until', 'stale_until', 'retry_at', 'g:' .. ARGV[1])
end
return 1
""",
)
"""KEYS: the entry. ARGV: kind, lease, mode, pause in ms. `failed`: whoever has something stale serves it for
that long instead of loading. `gone`: there is nothing to load any more.
"""

_DROP = """
local function drop(hash, field)
  redis.call('HDEL', hash, 'g:' .. field, 'body', 'stamp', 'fresh_until', 'stale_until', 'retry_at',
    'lease', 'lease_until', 'lease_stamp')
end
"""

BEGIN = Script(
    "cache.begin",
    NOW
    + _DROP
    + """
local until_ms = now_ms() + ARGV[2]
for i, hash in ipairs(KEYS) do
  local field = ARGV[3 + i]
  drop(hash, field)
  redis.call('HSET', hash, 'w:' .. field .. ':' .. ARGV[1], until_ms)
  redis.call('PEXPIRE', hash, ARGV[3])
end
return 1
""",
)
"""KEYS: hashes. ARGV: nonce, barrier in ms, TTL in ms, a kind or `*` for each hash."""

END = Script(
    "cache.end",
    _DROP
    + """
for i, hash in ipairs(KEYS) do
  drop(hash, ARGV[1 + i])
  redis.call('HDEL', hash, 'w:' .. ARGV[1 + i] .. ':' .. ARGV[1])
end
return 1
""",
)
"""KEYS: hashes. ARGV: nonce, a kind or `*` for each hash. Without `BEGIN` before it: plainly invalidates."""
