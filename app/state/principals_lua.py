"""The script of `principals`: who is it, may they come in, and what they came for. Atomic, on Redis' clock.

KEYS: the generation, the credential's copy and guard, the window of callers who are nobody. ARGV: nonce, TTL
of a lease, claims on the credential and on what is wanted in ms, the credential's proof, kind and id of what
is wanted, amount and window of the anonymous limit, twin; then how many tiers there are and a row {tier,
amount, window} for each, then such rows for what the route declared. Returns {alive, dead or unknown, the
credential's and the user's copy, what was counted, what was wanted}, see `hot_lua.hot_reply` and
`rate_limits.COUNT`.
"""

from app.state import hot_lua, keys
from app.state.rate_limits import COUNT
from app.state.redis import Script

ADMIT = Script(
    "edge.admit",
    hot_lua.READ
    + COUNT
    + f"local COPY, GUARD = '{keys.HOT_COPY_PREFIX}', '{keys.HOT_GUARD_PREFIX}'\n"
    + f"local WINDOW, TWIN = '{keys.RATE_WINDOW_PREFIX}', '{keys.RATE_TWIN_PREFIX}'\n"
    + """
local now, generation = now_ms(), redis.call('GET', KEYS[1])
local nonce, lease_ms, claim_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
local none = {'miss', 0, 0, '', ''}

local credential = hot_read(KEYS[2], KEYS[3], generation, now, nonce, lease_ms, claim_ms)
if credential.state == 'miss' then return {'unknown', hot_reply(credential), none, {}, none} end

local user = {state = 'gone', leased = 0, touch = 0, head = '', body = ''}
if credential.state == 'hit' then
  local name = 'user:' .. credential.owner
  user = hot_read(COPY .. name, GUARD .. name, generation, now, nonce, lease_ms, claim_ms)
  if user.state == 'miss' then return {'unknown', hot_reply(credential), hot_reply(user), {}, none} end
end

local alive = user.state == 'hit' and credential.proof == ARGV[5]
  and (credential.epoch == '' or credential.epoch == user.epoch)
if not alive then
  local anonymous = {key = KEYS[4], amount = tonumber(ARGV[8]), window_ms = ARGV[9], mark = ''}
  local counted = count_limits({anonymous})
  return {'dead', hot_reply(credential), hot_reply(user), counted, none}
end

local subject = string.match(credential.owner, ':(.*)$')
local tier = credential.tier ~= '' and credential.tier or user.tier
local limits, twin, tiers = {}, ARGV[10], tonumber(ARGV[11])
local function add(policy, at, mark)
  local key = WINDOW .. policy .. ':' .. subject
  limits[#limits + 1] = {key = key, amount = tonumber(ARGV[at]), window_ms = ARGV[at + 1], mark = mark}
end
for i = 1, tiers do
  local at = 9 + 3 * i
  if ARGV[at] == tier then add(tier, at + 1, '') end
end
for at = 12 + 3 * tiers, #ARGV, 3 do
  local mark = twin ~= '' and TWIN .. ARGV[at] .. ':' .. subject .. ':' .. twin or ''
  add(ARGV[at], at + 1, mark)
end
local counted, wanted = count_limits(limits), none
if counted[1] == 1 and ARGV[6] ~= '' then
  local name, claim = ARGV[6] .. ':' .. credential.owner .. ':' .. ARGV[7], tonumber(ARGV[4])
  wanted = hot_reply(hot_read(COPY .. name, GUARD .. name, generation, now, nonce, lease_ms, claim))
end
return {'alive', hot_reply(credential), hot_reply(user), counted, wanted}
""",
)
