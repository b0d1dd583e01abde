"""Hot copies: documents of MongoDB kept in Redis for reading, never believed when they might be stale.

Guarantees
- A write that was acknowledged is seen by the next read through any replica: a writer raises a barrier and
  drops the copy *before* it commits (`writing`), and nobody can fill one in while a barrier stands.
- A reader that missed may fill only with the lease it got when it missed; any write in between takes the
  lease away. So a slow reader can't put an old document back.
- A writer fills the copy itself (or buries it) only if it was alone. Two at once: nobody does, the next
  reader will. No version has to be compared.
- A deletion leaves a tombstone, so that a deleted document is known to be gone without asking MongoDB, and
  none of this can resurrect one: a copy is only ever made of what MongoDB returned under a lease or barrier.
- A writer that is killed leaves a barrier behind, which expires after HOT_WRITER_TTL_MS; until then reads go
  to MongoDB.
- After an outage of Redis no copy from before is believed: a copy carries the *generation*, a key that lives
  GENERATION_LEASE_MS and is renewed by every replica several times in that time. If Redis was away so long
  that a writer gave up on raising its barrier (`redis_timeout_s` is longer than the lease), then the lease is
  over too, and the first replica to return starts a new generation. So does the first beat that meets another
  server process than before: a restarted Redis may have lost the last barriers. A replica that could not
  raise its barrier drops the copy after its commit, even if its breaker has not noticed yet that Redis is
  back; if its own link is broken it starts a new generation when it is whole again. Leases and barriers are
  good for filling only in the generation that gave them: a fill that was stuck in a frozen Redis fills
  nothing when it thaws.

Does not guarantee: that a write which was never acknowledged (its replica was paused for more than
HOT_WRITER_TTL_MS, woke, wrote and was killed before the answer) is visible at once; copies made in the pause
live on for at most HOT_COPY_TTL_MS. The same bound holds for a replica that alone is cut off from Redis while
it writes, until it is back; and for a Redis that crashes and returns within GENERATION_LEASE_MS, until the
next beat.

When Redis is gone: `read` misses, `writing` goes on without a barrier and remembers to start a new
generation. When MongoDB is gone: hits go on for as long as copies live.

A reader that only moved a date on, such as an extended session's, needs no barrier: `swap` replaces the copy
if it is still the one that was read.

Keys: `keys.hot_copy`, `keys.hot_guard`, `keys.GENERATION`. Every operation is one script, O(writers of that
document). Leases on a miss: R. Nishtala et al., "Scaling Memcache at Facebook", NSDI 2013, section 3.2.1.
"""

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal, Self, cast

from app.core.errors import CargoFlowError, StoreUnavailableError
from app.core.metrics import Metrics
from app.state import hot_lua, keys
from app.state.redis import RedisStore

_log = logging.getLogger(__name__)

BEAT_INTERVAL_S = 0.3

HotState = Literal["hit", "gone", "miss"]


@dataclass(frozen=True, slots=True)
class HotCopy:
    """What is kept of a document. `body` is sent to clients as it is; `head` is for us; the rest is read by
    the edge's script.

    `head` must differ between any two states of the document. `life_ms`: how long the document still lives,
    which bounds the copy. `touch_in_ms`: after how long one reader is told to extend it (0: never).
    """

    head: bytes
    body: bytes = b""
    life_ms: int = keys.HOT_COPY_TTL_MS
    touch_in_ms: int = 0
    owner: str = ""
    epoch: str = ""
    tier: str = ""
    proof: str = ""

    def arguments(self) -> tuple[str | bytes | int, ...]:
        """Return the copy as the scripts take it; the order is `hot_lua.STORE`'s."""
        ttl_ms = max(1, min(self.life_ms, keys.HOT_COPY_TTL_MS))
        return (ttl_ms, self.touch_in_ms, self.head, self.body, self.owner, self.epoch, self.tier, self.proof)


@dataclass(frozen=True, slots=True)
class HotRead:
    """What a read found. `touch`: this reader is the one to extend the document. `lease`: proof to fill with
    after a miss.
    """

    state: HotState
    head: bytes = b""
    body: bytes = b""
    touch: bool = False
    lease: str = ""

    @classmethod
    def from_reply(cls, reply: list[Any], nonce: str) -> Self:
        """Read the reply of `hot_lua.READ`: state, lease granted, touch, head, body."""
        state, leased, touch, head, body = reply
        return cls(
            state=state.decode(), head=head, body=body, touch=touch == 1, lease=nonce if leased == 1 else ""
        )


MISS = HotRead("miss")


class HotWrite:
    """A write under way: what the copy was before, and what becomes of it."""

    def __init__(self, before: HotRead) -> None:
        """Unless told otherwise the copy stays dropped."""
        self.before = before
        self.mode: Literal["drop", "fill", "bury"] = "drop"
        self.copy = HotCopy(head=b"")

    def fill(self, copy: HotCopy) -> None:
        """Offer what was committed as the new copy."""
        self.mode, self.copy = "fill", copy

    def bury(self) -> None:
        """Leave a tombstone: the document is deleted."""
        self.mode = "bury"


class HotCopies:
    """Reads, writes and the beat. One a process."""

    def __init__(self, redis: RedisStore, metrics: Metrics) -> None:
        """The first beat makes copies believable; until then every read misses."""
        self._redis = redis
        self._metrics = metrics
        self._generations_owed = 0
        self._uncounted: Counter[str] = Counter()
        self._process = secrets.token_hex(8)
        self._nonces = count()

    def new_nonce(self) -> str:
        """Return what tells one read or write from all others, of any process: it names leases and barriers.

        A random part and a count: asking the kernel each time costs 3 µs, and the GIL for a moment.
        """
        return f"{self._process}.{next(self._nonces)}"

    async def read(self, name: str, *, claim: bool = True) -> HotRead:
        """Return the copy of `name`, a tombstone, or a miss, perhaps with a lease to fill. Never raises for
        Redis.

        `claim`: whether this reader would extend the document if told to.
        """
        nonce = self.new_nonce()
        try:
            reply = await self._redis.run(
                hot_lua.READ_ONE,
                (keys.GENERATION, keys.hot_copy(name), keys.hot_guard(name)),
                (nonce, keys.HOT_LEASE_TTL_MS, keys.HOT_TOUCH_CLAIM_MS if claim else 0),
            )
        except StoreUnavailableError:
            self.count(name, "bypass")
            return MISS
        found = HotRead.from_reply(reply, nonce)
        self.count(name, found.state)
        return found

    async def fill(self, name: str, lease: str, copy: HotCopy) -> None:
        """Put in a copy after a miss; nothing happens without a lease or if a writer came in between. Never
        raises for Redis.
        """
        await self._settle_read(name, lease, "fill", copy)

    async def bury(self, name: str, lease: str) -> None:
        """Record after a miss that MongoDB has no such document; as `fill`."""
        await self._settle_read(name, lease, "bury", HotCopy(head=b""))

    async def swap(self, name: str, seen: HotRead, copy: HotCopy) -> None:
        """Replace the copy if it still has the head that was `seen`, or do nothing. Never raises for Redis.

        For a reader that moved a date on and knows that nothing else changed. Not for writers: until the swap
        others read the copy from before.
        """
        names = (keys.GENERATION, keys.hot_copy(name))
        try:
            await self._redis.run(hot_lua.SWAP, names, (seen.head, *copy.arguments()))
        except StoreUnavailableError:
            _log.info("hot_swap_skipped", extra={"copy": name.partition(":")[0]})

    async def _settle_read(self, name: str, lease: str, mode: str, copy: HotCopy) -> None:
        if not lease:
            return
        names = (keys.GENERATION, keys.hot_copy(name), keys.hot_guard(name))
        try:
            await self._redis.run(hot_lua.FILL, names, (lease, mode, *copy.arguments()))
        except StoreUnavailableError:
            _log.info("hot_fill_skipped", extra={"copy": name.partition(":")[0]})

    @asynccontextmanager
    async def writing(self, name: str) -> AsyncIterator[HotWrite]:
        """Surround a commit to MongoDB: barrier and drop before, fill or bury after. Never raises for Redis.

        If the body says no (a CargoFlowError), nothing was committed and the barrier goes. If it fails in any
        other way the outcome is unknown, and a write that timed out may land later: the barrier stays until
        it expires.
        """
        nonce = self.new_nonce()
        names = (keys.GENERATION, keys.hot_copy(name), keys.hot_guard(name))
        protected = True
        try:
            reply = await self._redis.run(hot_lua.BEGIN, names, (nonce, keys.HOT_WRITER_TTL_MS))
            write = HotWrite(HotRead.from_reply(reply, ""))
        except StoreUnavailableError:
            protected, write = False, HotWrite(MISS)
        try:
            yield write
        except BaseException as error:
            if isinstance(error, CargoFlowError) and not isinstance(error, StoreUnavailableError):
                await self._settle_write(names, nonce, HotWrite(MISS), protected=True)
            elif not protected:
                self.distrust()
            raise
        await self._settle_write(names, nonce, write if protected else HotWrite(MISS), protected=protected)

    async def _settle_write(
        self, names: tuple[str, str, str], nonce: str, write: HotWrite, *, protected: bool
    ) -> None:
        """End a write. Without a barrier the copy must go before the answer, so ask past the breaker."""
        run = self._redis.run if protected else self._redis.insist
        try:
            await run(hot_lua.SETTLE, names, (nonce, write.mode, *write.copy.arguments()))
        except StoreUnavailableError:
            self.distrust()

    def distrust(self) -> None:
        """Have the next beat start a new generation: a write was made that Redis could not be told of."""
        self._generations_owed += 1

    def count(self, name: str, outcome: str) -> None:
        """Count a read for metrics and `/cache-stats`; `name` begins with the kind of document."""
        kind = name.partition(":")[0]
        self._metrics.hot_read(kind, outcome)
        self.tally(kind, outcome)

    def tally(self, kind: str, outcome: str) -> None:
        """Add one to what the next beat adds to the cluster's sums behind `stats`."""
        self._uncounted[f"{kind}.{outcome}"] += 1

    async def beat_forever(self) -> None:
        """Keep the generation alive, probe Redis, add up the cluster's counters. Runs in the kit's tasks."""
        while True:
            await self.beat()
            await asyncio.sleep(BEAT_INTERVAL_S)

    async def beat(self) -> None:
        """Beat once. Never raises for Redis."""
        counted, self._uncounted = self._uncounted, Counter()
        increments = [part for field, amount in counted.items() for part in (field, amount)]
        owed = self._generations_owed
        reply = await self._redis.probe(
            hot_lua.BEAT,
            (keys.GENERATION, keys.CACHE_STATS),
            (secrets.token_hex(8), keys.GENERATION_LEASE_MS, int(owed > 0), *increments),
        )
        if reply is None:
            self._uncounted.update(counted)
        else:
            self._generations_owed -= owed

    async def stats(self) -> dict[str, dict[str, int]]:
        """Return reads by kind and outcome over the whole cluster since Redis was last emptied, a beat
        behind.

        Raises StoreUnavailableError.
        """
        async with self._redis.guard("hot.stats"):
            counts = cast("dict[bytes, bytes]", await self._redis.client.hgetall(keys.CACHE_STATS))
        by_kind: dict[str, dict[str, int]] = {}
        for field, amount in counts.items():
            kind, _, outcome = field.decode().partition(".")
            by_kind.setdefault(kind, {})[outcome] = int(amount)
        return by_kind
