"""The scripts of `realtime`. Each is atomic in Redis and uses Redis' own clock.

KEYS: a channel's stream and its guard, a hash {epoch, e:<caller's id of an event> = its id in the stream}.
Entries of the stream are {t type, d data, e epoch, i caller's id}, in that order.
"""

from app.state.hot_lua import NOW
from app.state.redis import Script

_LAST = """
local function last_id()
  local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
  return last and last[1] or '0-0'
end
"""

_FENCE = """
local function passes(epoch)
  local highest = tonumber(redis.call('HGET', KEYS[2], 'epoch') or '0')
  if epoch < highest then return false end
  if epoch > highest then redis.call('HSET', KEYS[2], 'epoch', epoch) end
  return true
end
"""

APPEND = Script(
    "realtime.append",
    NOW
    + _LAST
    + _FENCE
    + """
local epoch, mark = ARGV[1], ARGV[2]
if not passes(tonumber(epoch)) then return {'refused', ''} end
if mark ~= '' then
  local seen = redis.call('HGET', KEYS[2], 'e:' .. mark)
  if seen then return {'repeated', seen} end
end
local last_ms, number = string.match(last_id(), '(%d+)-(%d+)')
local id = string.format('%.0f-%.0f', math.max(now_ms(), tonumber(last_ms)), number + 1)
redis.call('XADD', KEYS[1], id, 't', ARGV[3], 'd', ARGV[4], 'e', epoch, 'i', mark)
if mark ~= '' then redis.call('HSET', KEYS[2], 'e:' .. mark, id) end
local length, length_max = redis.call('XLEN', KEYS[1]), tonumber(ARGV[5])
if length > length_max + math.floor(length_max / 10) then
  for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', length - length_max)) do
    if entry[2][8] ~= '' then redis.call('HDEL', KEYS[2], 'e:' .. entry[2][8]) end
  end
  redis.call('XTRIM', KEYS[1], 'MAXLEN', length_max)
end
redis.call('PEXPIRE', KEYS[1], ARGV[6])
redis.call('PEXPIRE', KEYS[2], ARGV[6])
redis.call('PUBLISH', KEYS[1], table.concat({id, epoch, ARGV[3], ARGV[4]}, '\\n'))
return {'appended', id}
""",
)
"""ARGV: epoch, caller's id of the event or nothing, type, data, how many events are kept, TTL in ms. Returns
{appended, repeated or refused, id}. Trimmed a tenth of the length at a time.
"""

FENCE = Script(
    "realtime.fence",
    _LAST
    + _FENCE
    + """
if not passes(tonumber(ARGV[1])) then return {'refused', ''} end
redis.call('PEXPIRE', KEYS[2], math.max(redis.call('PTTL', KEYS[1]), ARGV[2]))
return {'raised', last_id()}
""",
)
"""ARGV: epoch, TTL in ms. Returns {raised or refused, the id of the last event}."""

READ = Script(
    "realtime.read",
    _LAST
    + """
local since, known = ARGV[1], false
if since == '' then return {1, last_id(), {}} end
if since == '0-0' then
  local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
  known = not first or string.match(first[1], '-(%d+)') == '1'
else
  known = #redis.call('XRANGE', KEYS[1], since, since) > 0
end
if not known then return {0, last_id(), {}} end
return {1, last_id(), redis.call('XRANGE', KEYS[1], '(' .. since, '+', 'COUNT', ARGV[2])}
""",
)
"""KEYS: the stream. ARGV: the id after which to read, or nothing for now; how many events at most. Returns
{whether nothing between that id and the events is missing, the id of the last event, events}.
"""
