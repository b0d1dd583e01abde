"""Rate limits: exact over all replicas, counted together or not at all.

Guarantees: `take` counts one request against all of its limits in one script, on Redis' clock: if one of them
is used up, none is counted. Of N allowed, exactly N get through, however many replicas ask at once; a window
opens with the first request it counts and ends its length later. `refund` gives back only within the window
that was charged. Requests that name the same `twin` (the sending of one request again and again) are counted
once in a window, however many are under way at once, and are let through when the limit is used up by then.

Does not guarantee: anything across a Redis that lost its data; the windows start anew.

When Redis is gone: a limit marked `closed` refuses with StoreUnavailableError (logins: guessing passwords
must not get cheaper by stalling Redis). For every other limit each replica allows the whole amount, counted
in a bounded table of its own; what no longer fits the table is let through. Never a false 429.

Keys: `keys.rate_window(policy, subject)`, `keys.rate_twin(policy, subject, twin)`, TTL the window. O(limits
of the request). Algorithm: fixed window counter, window started by its first hit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from limits import parse

from app.core.clock import Clock
from app.core.errors import StoreUnavailableError
from app.core.metrics import Metrics
from app.state import keys
from app.state.redis import RedisStore, Script

LOCAL_TABLE_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Rate:
    """`amount` requests per `window_s`; `policy` is the name it has in keys, headers and metrics."""

    policy: str
    amount: int
    window_s: int
    closed: bool = False


@lru_cache(maxsize=128)
def parse_rate(policy: str, text: str, *, closed: bool = False) -> Rate:
    """Read a rate in slowapi's notation, such as `600/minute`."""
    item = parse(text)
    return Rate(policy, item.amount, item.get_expiry(), closed=closed)


@dataclass(frozen=True, slots=True)
class Limit:
    """A rate applied to one subject: a user, an address, an e-mail with an address. `twin` names the request
    if it may be sent more than once and is to count once.
    """

    rate: Rate
    subject: str
    twin: str = ""

    @property
    def key(self) -> str:
        """The counter's name in Redis."""
        return keys.rate_window(self.rate.policy, self.subject)

    @property
    def mark(self) -> str:
        """The name in Redis of what says that the request was counted; empty if it has no twins."""
        return keys.rate_twin(self.rate.policy, self.subject, self.twin) if self.twin else ""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a request stands with the limit that is nearest to its end (or the one that is used up and takes
    longest to open).
    """

    allowed: bool
    policy: str
    amount: int
    remaining: int
    window_s: int
    reset_s: int


@dataclass(frozen=True, slots=True)
class Charge:
    """What was counted, so that it can be given back: each limit's key and the end of the window it was
    counted in. Without those that counted a twin before; `twin_windows` are those that count for twins, too.
    """

    standing: Standing
    windows: tuple[tuple[str, int], ...] = ()
    twin_windows: tuple[tuple[str, int], ...] = ()


COUNT = """
local function count_limits(limits)
  local tight, worst = nil, nil
  for i, l in ipairs(limits) do
    l.used = tonumber(redis.call('GET', l.key) or '0')
    l.counted = l.mark ~= '' and redis.call('EXISTS', l.mark) == 1
    if l.used >= l.amount and not l.counted then
      l.left = redis.call('PTTL', l.key)
      if not worst or l.left > worst.left then worst = l; worst.index = i end
    end
  end
  if worst then return {0, worst.index, 0, worst.left, {}} end
  local ends = {}
  for i, l in ipairs(limits) do
    ends[i] = 0
    if not l.counted then
      l.used = redis.call('INCR', l.key)
      if l.used == 1 then redis.call('PEXPIRE', l.key, l.window_ms) end
      ends[i] = redis.call('PEXPIRETIME', l.key)
      if l.mark ~= '' then redis.call('SET', l.mark, '', 'PXAT', ends[i]) end
    end
    local remaining = l.amount - l.used
    if not tight or remaining < tight.remaining then
      tight = {index = i, remaining = remaining, key = l.key}
    end
  end
  return {1, tight.index, tight.remaining, math.max(0, redis.call('PTTL', tight.key)), ends}
end
"""
"""`count_limits` takes rows {key, amount, window_ms, mark}, at least one, and returns {allowed, index,
remaining, reset_ms, window ends}; the end is 0 where a twin had been counted.
"""

_TAKE = Script(
    "limits.take",
    COUNT
    + """
local limits = {}
for i, key in ipairs(KEYS) do
  local at = 3 * i - 2
  limits[i] = {key = key, amount = tonumber(ARGV[at]), window_ms = ARGV[at + 1], mark = ARGV[at + 2]}
end
return count_limits(limits)
""",
)

_REFUND = Script(
    "limits.refund",
    """
for i, key in ipairs(KEYS) do
  if redis.call('PEXPIRETIME', key) == tonumber(ARGV[i]) and tonumber(redis.call('GET', key)) > 0 then
    redis.call('DECR', key)
  end
end
return 1
""",
)


class RateLimits:
    """Counts requests. One a process."""

    def __init__(self, redis: RedisStore, clock: Clock, metrics: Metrics) -> None:
        """The local table stays empty for as long as Redis answers."""
        self._redis = redis
        self._metrics = metrics
        self._local = LocalWindows(clock)

    async def take(self, limits: Sequence[Limit]) -> Charge:
        """Count one request against all `limits` (at least one), or against none.

        Look at `standing.allowed`. Raises StoreUnavailableError if Redis is gone and one of the limits is
        closed then.
        """
        arguments = [
            part for limit in limits for part in (limit.rate.amount, limit.rate.window_s * 1000, limit.mark)
        ]
        try:
            reply = await self._redis.run(_TAKE, [limit.key for limit in limits], arguments)
        except StoreUnavailableError:
            return self.take_locally(limits)
        names, twins = [limit.key for limit in limits], [bool(limit.twin) for limit in limits]
        return self.charge([limit.rate for limit in limits], names, reply, twins=twins)

    def take_locally(self, limits: Sequence[Limit]) -> Charge:
        """Count in this replica alone, because Redis is gone. Raises StoreUnavailableError for a limit that
        is closed then.
        """
        if any(limit.rate.closed for limit in limits):
            raise StoreUnavailableError("Redis")
        standing = self._local.take(limits)
        if not standing.allowed:
            self._metrics.rate_limited(standing.policy)
        return Charge(standing)

    def charge(
        self,
        rates: Sequence[Rate],
        names: Sequence[str],
        reply: tuple[int, int, int, int, list[int]],
        *,
        twins: Sequence[bool] = (),
    ) -> Charge:
        """Read the reply of `count_limits` for these rates and keys, in the order they were counted.

        `twins` says which of them count twins once; none unless given.
        """
        allowed, index, remaining, reset_ms, ends = reply
        rate = rates[index - 1]
        if not allowed:
            self._metrics.rate_limited(rate.policy)
        standing = Standing(
            allowed=allowed == 1,
            policy=rate.policy,
            amount=rate.amount,
            remaining=remaining,
            window_s=rate.window_s,
            reset_s=max(1, -(-reset_ms // 1000)),
        )
        rows = [
            (name, end, twin)
            for name, end, twin in zip(names, ends, twins or [False] * len(names), strict=False)
            if end > 0
        ]
        return Charge(
            standing,
            tuple((name, end) for name, end, twin in rows if not twin),
            tuple((name, end) for name, end, twin in rows if twin),
        )

    async def refund(self, charge: Charge, *, for_twins: bool = True) -> None:
        """Give a counted request back, once, if its windows still run. With Redis gone nothing happens.

        Not `for_twins`: what it counted stands for one of its twins, which has had the effect.
        """
        windows = charge.windows + (charge.twin_windows if for_twins else ())
        if not windows:
            return
        try:
            await self._redis.run(_REFUND, [key for key, _ in windows], [ends for _, ends in windows])
        except StoreUnavailableError:
            return


class LocalWindows:
    """Fixed windows in this process, for as long as Redis is gone. Holds at most LOCAL_TABLE_MAX counters."""

    def __init__(self, clock: Clock) -> None:
        """Starts empty."""
        self._clock = clock
        self._windows: dict[str, tuple[int, float]] = {}

    def take(self, limits: Sequence[Limit]) -> Standing:
        """Count as `RateLimits.take` does, against this process' counters."""
        now_s = self._clock.monotonic_s()
        rows = [(limit, *self._current(limit, now_s), self._counted(limit, now_s)) for limit in limits]
        full = [row for row in rows if row[1] >= row[0].rate.amount and not row[3]]
        if full:
            limit, _, ends_s, _ = max(full, key=lambda row: row[2])
            return _standing(limit.rate, allowed=False, remaining=0, left_s=ends_s - now_s)
        if len(self._windows) + 2 * len(rows) > LOCAL_TABLE_MAX:
            self._windows = {key: window for key, window in self._windows.items() if window[1] > now_s}
        for limit, used, ends_s, counted in rows:
            if not counted:
                self._put(limit.key, used + 1, ends_s)
                self._put(limit.mark, 1, ends_s)
        limit, used, ends_s, counted = min(rows, key=lambda row: row[0].rate.amount - row[1] + row[3])
        remaining = max(0, limit.rate.amount - used - (not counted))
        return _standing(limit.rate, allowed=True, remaining=remaining, left_s=ends_s - now_s)

    def _put(self, key: str, used: int, ends_s: float) -> None:
        if key and (key in self._windows or len(self._windows) < LOCAL_TABLE_MAX):
            self._windows[key] = (used, ends_s)

    def _counted(self, limit: Limit, now_s: float) -> bool:
        """Say whether a twin of the request was counted by that limit."""
        return self._windows.get(limit.mark, (0, 0.0))[1] > now_s

    def _current(self, limit: Limit, now_s: float) -> tuple[int, float]:
        used, ends_s = self._windows.get(limit.key, (0, 0.0))
        return (used, ends_s) if ends_s > now_s else (0, now_s + limit.rate.window_s)


def _standing(rate: Rate, *, allowed: bool, remaining: int, left_s: float) -> Standing:
    return Standing(
        allowed=allowed,
        policy=rate.policy,
        amount=rate.amount,
        remaining=remaining,
        window_s=rate.window_s,
        reset_s=max(1, round(left_s)),
    )
