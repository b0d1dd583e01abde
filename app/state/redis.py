"""The one door to Redis: pooled client, script calls, timeouts, a breaker.

Everything that must be atomic is a Lua script, and every script is one round trip: `run` sends its hash and,
the first time a server does not know it, the text. Scripts read the time from Redis itself.

When Redis is gone, calls raise StoreUnavailableError within `redis_timeout_s`, and at once while the breaker
is open. What then fails open and what closed is decided by each caller and listed in
`docs/decisions/0004-fails-open-fails-closed.md`. No value is ever only in Redis unless losing it costs
nothing but time.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import redis.asyncio
import redis.exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from app.core.clock import Clock
from app.core.errors import StoreUnavailableError
from app.core.metrics import Metrics
from app.core.settings import Settings
from app.state.breaker import Breaker, StoreGuard
from app.state.health import StoreHealth, StoreProbe
from app.state.pipelining import AutoPipeline

UNAVAILABLE: tuple[type[Exception], ...] = (
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
    redis.exceptions.BusyLoadingError,
    redis.exceptions.ReadOnlyError,
    OSError,  # TimeoutError is one
)

Argument = str | bytes | int

INSIST_TIMEOUT_S = 0.1
"""What a write waits for a Redis that was gone a moment ago; one that is back answers in a millisecond."""


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script and the name it has in metrics and logs."""

    name: str
    lua: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha", hashlib.sha1(self.lua.encode(), usedforsecurity=False).hexdigest())


class RedisStore:
    """The client, its breaker and what its probe saw. Made once a process; `close()` when done."""

    def __init__(self, settings: Settings, clock: Clock, metrics: Metrics) -> None:
        """Connects lazily: a Redis that is down does not keep a replica from starting."""
        self._url = settings.redis_url.get_secret_value()
        self._client_name = f"cargoflow-{settings.replica_name}"
        self._pool: redis.asyncio.BlockingConnectionPool = redis.asyncio.BlockingConnectionPool.from_url(
            self._url,
            max_connections=settings.db_pool_max,
            timeout=settings.redis_timeout_s,
            socket_connect_timeout=settings.redis_timeout_s,
            # the guard's timeout covers the whole call; a second timer each read would only cost CPU
            socket_timeout=None,
            retry=Retry(NoBackoff(), 0),  # a counting script must not run twice by itself
            client_name=self._client_name,
            # listening for them switches off the pool's check for connections that died: 30 of 30 failed once
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )
        self.client: redis.asyncio.Redis = redis.asyncio.Redis(connection_pool=self._pool)
        self._pipeline = AutoPipeline(self._pool, timeout_s=settings.redis_timeout_s)
        self.timeout_s = settings.redis_timeout_s
        self._clock = clock
        self._metrics = metrics
        self._breaker = Breaker("Redis", metrics)
        self._last_probe = StoreProbe(clock)
        metrics.collect_pool("Redis", self._pool_sizes)

    def guard(self, command: str) -> StoreGuard:
        """Return the context in which calls on `client` run; `command` names them in logs and metrics."""
        return self._guard(command, self.timeout_s)

    def _guard(self, command: str, timeout_s: float | None) -> StoreGuard:
        return StoreGuard(
            breaker=self._breaker,
            command=command,
            timeout_s=timeout_s,
            unavailable=UNAVAILABLE,
            clock=self._clock,
            metrics=self._metrics,
        )

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """Run a script; one round trip once the server knows it.

        Raises StoreUnavailableError; a server that had to be told the script may take its time twice. A call
        that timed out may still have run.
        """
        async with self._guard(script.name, None):  # the pipeline keeps the time
            return await self._evaluate(script, keys, arguments)

    async def insist(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """Run a script even while the breaker is open, because Redis may be back and others use it already.

        Past an open breaker the wait is INSIST_TIMEOUT_S at most, and an answer closes it. Raises
        StoreUnavailableError.
        """
        if not self._breaker.is_open:
            return await self.run(script, keys, arguments)
        try:
            async with asyncio.timeout(INSIST_TIMEOUT_S):
                result = await self._evaluate_alone(script, keys, arguments)
        except UNAVAILABLE as error:
            raise StoreUnavailableError("Redis") from error
        self._breaker.succeeded()
        return result

    async def probe(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """Run a script past an open breaker; its answer closes the breaker and is what `/ready` reports.

        Returns None when Redis does not answer.
        """
        started_s = self._clock.monotonic_s()
        try:
            async with asyncio.timeout(self.timeout_s):
                result = await self._evaluate(script, keys, arguments)
        except UNAVAILABLE as error:
            self._breaker.failed(error)
            self._last_probe.failed(error)
            return None
        self._breaker.succeeded()
        self._last_probe.passed(latency_s=self._clock.monotonic_s() - started_s)
        return result

    async def _evaluate(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        try:
            return await self._pipeline.execute(("EVALSHA", script.sha, len(keys), *keys, *arguments))
        except redis.exceptions.NoScriptError:
            return await self._pipeline.execute(("EVAL", script.lua, len(keys), *keys, *arguments))

    async def _evaluate_alone(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]
    ) -> Any:
        """Run it on a connection of its own: a batch that is stuck since the outage holds others up."""
        try:
            return await self.client.evalsha(script.sha, len(keys), *keys, *arguments)
        except redis.exceptions.NoScriptError:
            return await self.client.eval(script.lua, len(keys), *keys, *arguments)

    def dedicated_connection(self) -> redis.asyncio.Connection:
        """Return a new connection, not connected yet, outside of the pool and of every guard: for listening
        to what Redis sends unasked. Its user sets the timeouts and disconnects it.
        """
        pool = redis.asyncio.ConnectionPool.from_url(
            self._url,
            socket_timeout=None,
            socket_connect_timeout=self.timeout_s,
            retry=Retry(NoBackoff(), 0),
            client_name=f"{self._client_name}-listener",
            protocol=2,
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )
        connection: redis.asyncio.Connection = pool.make_connection()  # type: ignore[no-untyped-call]
        return connection

    @property
    def health(self) -> StoreHealth:
        """What the probe last saw; no I/O."""
        return self._last_probe.health(pool=self._pool_sizes())

    def _pool_sizes(self) -> dict[str, int]:
        sizes = {"max": self._pool.max_connections, "open": 0, "in_use": 0}
        for count, attributes in self._pool.get_connection_count():
            sizes["open"] += count
            sizes["in_use"] += count if "used" in attributes.values() else 0
        return sizes

    async def close(self) -> None:
        """Close all connections."""
        await self._pipeline.close()
        await self.client.aclose()
        await self._pool.disconnect()
