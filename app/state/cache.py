"""The cache: answers that many ask for, as the bytes they are sent as, loaded once for all replicas.

    async with kit.cache.changing(LANE_QUOTES.all(tenant_id=…)):           # a writer, around its commit
        …
    read = await kit.cache.read(LANE_QUOTES.entry(tenant_id=…, lane=…), load)   # a reader

Guarantees
- Tenant and user are in the key by construction: see `cache_kinds`.
- One loader per entry across replicas: the first reader that misses gets a lease, the others wait for what it
  fills in, one a process asking Redis now and then and the rest in memory, for WAIT_S at most. A lease ends
  with its TTL, so a loader that died is followed by the next; one that was cancelled gives it back at once.
  Readers who come at the same moment share their question, too: a crowd costs a process two round trips.
- A write that was acknowledged is seen by the next read through any replica: `changing` raises a barrier and
  takes the entries' generation away *before* the commit, and again after it. What was loaded, or began to be
  loaded, under an earlier generation is never believed, so no slow loader brings back what was there
  before. A writer that is killed leaves its barrier, and until that expires reads load for themselves.
- When loading fails, an entry whose time is over is served for as long as its kind allows, counted and marked
  `stale`, and the load is tried again once a second. What was invalidated is never served, not even then.
- Times to live are shortened by up to a tenth at random, so that what was filled together does not end
  together.
- A refusal (a CargoFlowError below 500, such as not found) is an answer: it is raised to whoever asked, not
  kept, and ends what was kept.

Does not guarantee: a single load where it takes longer than the lease, where its result is too large to be
kept, while a writer's barrier stands, or while Redis is gone. Waiters of one process share a failure. Nor
that a write is seen which was made by a replica that alone is cut off from Redis, until it is back; should
it be killed before that, until the entries' time is over.

When Redis is gone: reads load for themselves, one at a time for each entry of a process (`bypass`); a write
that could not raise its barrier insists on invalidating after its commit or else has `hot` start a new
generation, which ends every entry. A wiped Redis starts empty. When MongoDB is gone: what is fresh is a hit,
what is not is served stale.

Keys: `keys.cache_entry`, `keys.cache_owner`. A hit is one script, O(1); an invalidation one script for all
its targets, however many entries they cover. Leases on a miss: R. Nishtala et al., "Scaling Memcache at
Facebook", NSDI 2013, section 3.2.1. Generations instead of deleting: "namespaces" of the memcached FAQ.
"""

import asyncio
import logging
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from app.core.clock import Clock
from app.core.errors import CargoFlowError, StoreUnavailableError
from app.core.metrics import Metrics
from app.state import cache_lua, keys
from app.state.cache_kinds import CacheEntry, CacheTarget
from app.state.hot import HotCopies
from app.state.redis import RedisStore
from app.state.shared_loads import SharedLoads

_log = logging.getLogger(__name__)

WAIT_S: Final = 4.0
"""How long a reader waits for another's load: longer than a lease, shorter than Nginx waits for us."""
JITTER_SHARE: Final = 0.1
LOAD_FAILED: Final = "load_failed"
"""Counted beside the outcomes of reads."""
_STATS_PREFIX: Final = "cache/"
_FIRST_PAUSE_S: Final = 0.01
_LONGEST_PAUSE_S: Final = 0.1
_SERVER_ERROR: Final = 500

Load: TypeAlias = Callable[[], Awaitable[bytes]]
"""Makes the body anew, from MongoDB. Asked for one that does not exist it raises, such as NotFoundError."""
CacheOutcome: TypeAlias = Literal["hit", "miss", "stale", "bypass"]


@dataclass(frozen=True, slots=True)
class CacheRead:
    """A body, and how it was come by. `miss`: it was loaded for this reader, alone or among others."""

    body: bytes
    outcome: CacheOutcome


@dataclass(frozen=True, slots=True)
class _Found:
    """What `cache_lua.READ` said."""

    state: Literal["hit", "stale", "load", "wait", "barred"]
    body: bytes = b""
    lease: str = ""


class _Flight:
    """A load that others in this process wait for. It lands with a read, an error, or nothing at all if
    whoever flew it left.
    """

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.outcome: CacheRead | Exception | None = None

    async def landing(self, timeout_s: float) -> CacheRead | None:
        try:
            async with asyncio.timeout(timeout_s):
                await self.over.wait()
        except TimeoutError:
            return None
        if isinstance(self.outcome, Exception):
            raise self.outcome.with_traceback(None)
        return self.outcome


class Cache:
    """Reads, loads and invalidates entries. One a process."""

    def __init__(self, *, redis: RedisStore, hot: HotCopies, clock: Clock, metrics: Metrics) -> None:
        """`hot` keeps the generation that entries are believed in, and adds up the cluster's counters."""
        self._redis = redis
        self._hot = hot
        self._clock = clock
        self._metrics = metrics
        self._flights: dict[str, _Flight] = {}
        self._asking: SharedLoads[_Found] = SharedLoads()
        self._direct: SharedLoads[bytes] = SharedLoads()

    async def read(self, entry: CacheEntry, load: Load) -> CacheRead:
        """Return the entry, or what `load` makes of it. Raises what `load` raises, if nothing can be served
        in its place; never for Redis.
        """
        read = await self._read(entry, load)
        self._metrics.cache_read(entry.kind.name, read.outcome)
        self._hot.tally(_STATS_PREFIX + entry.kind.name, read.outcome)
        return read

    @asynccontextmanager
    async def changing(self, *targets: CacheTarget) -> AsyncIterator[None]:
        """Surround a commit that these entries are made of. Never raises for Redis.

        If the body says no (a CargoFlowError), nothing was committed and the barrier goes. If it fails in any
        other way the outcome is unknown, and a write that timed out may land later: the barrier stays until
        it expires.
        """
        nonce = secrets.token_hex(8)
        names, fields = [target.hash_key for target in targets], [target.field for target in targets]
        try:
            times_ms = (keys.CACHE_WRITER_TTL_MS, keys.CACHE_LIFE_MAX_MS)
            await self._redis.run(cache_lua.BEGIN, names, (nonce, *times_ms, *fields))
            protected = True
        except StoreUnavailableError:
            protected = False
        try:
            yield
        except BaseException as error:
            if isinstance(error, CargoFlowError) and not isinstance(error, StoreUnavailableError):
                await self._end(names, (nonce, *fields))
            elif not protected:
                self._hot.distrust()
            raise
        await self._end(names, (nonce, *fields))

    async def invalidate(self, *targets: CacheTarget) -> None:
        """Have these entries loaded anew by whoever reads them next. Never raises for Redis.

        For what ends without a commit of its own, such as a login session's lists. A writer that is killed
        between its commit and this leaves entries as they were: writers use `changing`.
        """
        names = [target.hash_key for target in targets]
        await self._end(names, ("", *(target.field for target in targets)))

    async def _end(self, names: list[str], arguments: tuple[str, ...]) -> None:
        """Invalidate, past an open breaker: whoever is answered after this must not read what was before."""
        try:
            await self._redis.insist(cache_lua.END, names, arguments)
        except StoreUnavailableError:
            self._hot.distrust()

    async def _read(self, entry: CacheEntry, load: Load) -> CacheRead:
        gives_up_s = self._clock.monotonic_s() + WAIT_S
        while True:
            found = await self._ask(entry)
            patience_s = gives_up_s - self._clock.monotonic_s()
            if found.state != "wait" or patience_s <= 0:
                return await self._settle(entry, found, load)
            flight = self._flights.get(found.lease)
            if flight is None:
                return await self._follow(entry, found.lease, load, gives_up_s)
            landed = await flight.landing(patience_s)
            if landed is not None:
                return landed

    async def _ask(self, entry: CacheEntry) -> _Found:
        """Ask Redis, together with whoever here asks the same now. One of them may get the lease."""
        nonce = secrets.token_hex(8)
        found = await self._asking.load(entry.hash_key, lambda: self._ask_redis(entry, nonce))
        if found.state == "load" and found.lease != nonce:
            return _Found("wait", lease=found.lease)
        return found

    async def _ask_redis(self, entry: CacheEntry, nonce: str) -> _Found:
        names = (keys.GENERATION, entry.hash_key, *entry.owners)
        times_ms = (keys.CACHE_LEASE_TTL_MS, keys.CACHE_LIFE_MAX_MS)
        try:
            found = await self._redis.run(cache_lua.READ, names, (entry.kind.name, nonce, *times_ms))
        except StoreUnavailableError:
            return _Found("barred")
        state, body, lease = found
        return _Found(state.decode(), body, lease.decode())

    async def _settle(self, entry: CacheEntry, found: _Found, load: Load) -> CacheRead:
        """Answer by what was found; who must wait no longer loads without keeping it."""
        if found.state == "hit" or found.state == "stale":  # noqa: PLR1714  # narrows the type
            return CacheRead(found.body, found.state)
        if found.state == "load":
            with self._flying(found.lease) as flight:
                flight.outcome = await self._load(entry, found, load)
                return flight.outcome
        body = await self._direct.load(entry.hash_key, lambda: self._counted(entry, load))
        return CacheRead(body, "bypass")

    async def _follow(self, entry: CacheEntry, lease: str, load: Load, gives_up_s: float) -> CacheRead:
        """Ask until a load elsewhere has ended, on behalf of all who wait for it in this process."""
        pause_s = _FIRST_PAUSE_S
        with self._flying(lease) as flight:
            while True:
                await asyncio.sleep(random.uniform(pause_s / 2, pause_s))  # noqa: S311  # spreads processes
                found = await self._ask(entry)
                if found.state != "wait" or self._clock.monotonic_s() >= gives_up_s:
                    break
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
            read = await self._settle(entry, found, load)
            flight.outcome = CacheRead(read.body, "miss") if read.outcome == "hit" else read
            return flight.outcome

    async def _load(self, entry: CacheEntry, found: _Found, load: Load) -> CacheRead:
        try:
            body = await self._counted(entry, load)
        except Exception as error:
            if _is_refusal(error):
                await self._release(entry, found.lease, "gone")
                raise
            await self._release(entry, found.lease, "failed")
            if not found.body:
                raise
            expected = isinstance(error, StoreUnavailableError)
            fields = {"kind": entry.kind.name}
            _log.warning("cache_served_stale", extra=fields, exc_info=None if expected else error)
            return CacheRead(found.body, "stale")
        except BaseException:
            await self._release(entry, found.lease, "left")
            raise
        await self._fill(entry, found.lease, body)
        return CacheRead(body, "miss")

    async def _counted(self, entry: CacheEntry, load: Load) -> bytes:
        try:
            return await load()
        except Exception as error:
            if not _is_refusal(error):
                self._metrics.cache_load_failed(entry.kind.name)
                self._hot.tally(_STATS_PREFIX + entry.kind.name, LOAD_FAILED)
            raise

    async def _fill(self, entry: CacheEntry, lease: str, body: bytes) -> None:
        kind = entry.kind
        if len(body) > kind.body_max_bytes:
            _log.warning("cache_entry_too_large", extra={"kind": kind.name, "bytes": len(body)})
            await self._release(entry, lease, "gone")
            return
        fresh_s = kind.ttl_s * random.uniform(1 - JITTER_SHARE, 1)  # noqa: S311  # spreads ends, hides nothing
        times_ms = (max(1, round(fresh_s * 1000)), round(kind.stale_s * 1000))
        try:
            await self._redis.run(cache_lua.FILL, (entry.hash_key,), (lease, *times_ms, body))
        except StoreUnavailableError:
            _log.info("cache_fill_skipped", extra={"kind": kind.name})

    async def _release(self, entry: CacheEntry, lease: str, mode: Literal["failed", "gone", "left"]) -> None:
        arguments = (entry.kind.name, lease, mode, keys.CACHE_RETRY_PAUSE_MS)
        try:
            await self._redis.run(cache_lua.RELEASE, (entry.hash_key,), arguments)
        except StoreUnavailableError:
            _log.info("cache_release_skipped", extra={"kind": entry.kind.name})

    @contextmanager
    def _flying(self, lease: str) -> Iterator[_Flight]:
        """Let others in this process wait for what becomes of that lease."""
        flight = _Flight()
        registered = self._flights.setdefault(lease, flight) is flight
        try:
            yield flight
        except Exception as error:
            flight.outcome = error
            raise
        finally:
            flight.over.set()
            if registered:
                del self._flights[lease]


def _is_refusal(error: Exception) -> bool:
    """Whether the load said no, which is an answer, rather than that it failed."""
    return isinstance(error, CargoFlowError) and error.status < _SERVER_ERROR
