"""The one door to MongoDB: pooled client, majority writes, primary reads, timeouts, a breaker and a
background probe.

Motor stays behind this module (decision 0001): the rest of `app.state` and the features' stores see
collections and `guard()`, so that another driver can take its place here. Reads go to the primary and writes
are acknowledged by a majority, hence what one replica has written, every other one reads next.

When MongoDB is gone, `guard()` raises StoreUnavailableError within `mongo_timeout_s`, and at once when the
breaker is open. The probe asks `hello` every PROBE_INTERVAL_S; its answer closes the breaker, feeds `/ready`,
and sets the `StoreClock`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Literal, TypeAlias

import pymongo.errors
from bson.codec_options import CodecOptions
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorCollection, AsyncIOMotorDatabase
from pymongo.uri_parser import parse_uri

from app.core.errors import StoreUnavailableError
from app.core.metrics import Metrics
from app.core.settings import Settings
from app.state.breaker import Breaker, StoreGuard
from app.state.health import StoreHealth, StoreProbe
from app.state.mongo_pool import PoolGauge
from app.state.store_clock import StoreClock

_log = logging.getLogger(__name__)

Document: TypeAlias = dict[str, Any]
Collection: TypeAlias = AsyncIOMotorCollection[Document]
ClientSession: TypeAlias = Any
"""The driver's session, to be passed on to the calls of one transaction."""

DEFAULT_DATABASE = "cargoflow"
PROBE_INTERVAL_S = 1.0
_TZ_AWARE: CodecOptions[Mapping[str, Any]] = CodecOptions(document_class=dict, tz_aware=True)

UNAVAILABLE: tuple[type[BaseException], ...] = (
    pymongo.errors.ConnectionFailure,
    pymongo.errors.ExecutionTimeout,
    pymongo.errors.WTimeoutError,
    pymongo.errors.WaitQueueTimeoutError,
)


def unexpired(now: datetime) -> Document:
    """Return a filter that matches what ends after `now`, the time of a clock that follows MongoDB's.

    A plain comparison, which rides along with an index. `$expr` with `$$NOW` would ask MongoDB's own clock,
    but for a filter that has one the local cluster's engine reads the whole collection, whatever else it
    says: 25 ms for each thousand documents.
    """
    return {"expires_at": {"$gt": now}}


def one_page(
    owned: Document,
    *,
    order: Literal[1, -1],
    after: tuple[datetime, str] | None,
    limit: int,
    also: Document | None = None,
) -> list[Document]:
    """Return the pipeline for one page, by `created_at` and `_id`, of what equals `owned` and matches `also`.

    `after` is the date and the id of the last one before the page. What an index serves stands in a `$match`
    of its own: the local cluster's engine reads the whole collection where an operator such as `$or`, or a
    range outside of the index, stands beside it. A MongoDB puts the stages together again.
    """
    pipeline: list[Document] = [{"$match": owned}]
    if also is not None:
        pipeline.append({"$match": also})
    if after is not None:
        created_at, document_id = after
        beyond = "$gt" if order == 1 else "$lt"
        same_moment = {"created_at": created_at, "_id": {beyond: document_id}}
        pipeline.append({"$match": {"$or": [{"created_at": {beyond: created_at}}, same_moment]}})
    return [*pipeline, {"$sort": {"created_at": order, "_id": order}}, {"$limit": limit}]


def counted(owned: Document, *, by: str) -> list[Document]:
    """Return the pipeline that counts what equals `owned`: rows {_id: value of the field `by`, count}."""
    return [{"$match": owned}, {"$group": {"_id": f"${by}", "count": {"$sum": 1}}}]


def from_now(milliseconds: int) -> Document:
    """Return an update-pipeline expression for a date that many milliseconds after MongoDB's own now."""
    return {"$add": ["$$NOW", milliseconds]}


LEASE_RUNS: Document = {"$gt": [{"$toLong": "$expires_at"}, {"$toLong": "$$NOW"}]}
"""An update-pipeline expression: whether the document's lease runs, on MongoDB's own clock. False without a
lease, since null sorts below every number. Dates are compared as numbers because the local cluster's engine
finds no order between a stored date and `$$NOW`.
"""


def milliseconds(seconds: float) -> int:
    """Return whole milliseconds, as dates in MongoDB have them."""
    return round(seconds * 1000)


def literal(value: Any) -> Document:
    """Wrap a value for an update pipeline so that nothing a caller sent is read as an expression."""
    return {"$literal": value}


class MongoStore:
    """The client, its breaker and its probe. Made once a process; `close()` when done."""

    def __init__(
        self,
        settings: Settings,
        clock: StoreClock,
        metrics: Metrics,
        *,
        prepare: Callable[["MongoStore"], Awaitable[None]],
    ) -> None:
        """Connects lazily: a MongoDB that is down does not keep a replica from starting.

        `prepare` makes the indexes. It runs when MongoDB first answers, again until it succeeds, and the
        store is not healthy before.
        """
        uri = settings.mongodb_uri.get_secret_value()
        timeout_ms = round(settings.mongo_timeout_s * 1000)
        self._gauge = PoolGauge()
        self._client: AsyncIOMotorClient[Document] = AsyncIOMotorClient(
            uri,
            event_listeners=[self._gauge],
            appname=f"cargoflow-{settings.replica_name}",
            tz_aware=True,
            w="majority",
            readPreference="primary",
            maxPoolSize=settings.db_pool_max,
            minPoolSize=min(settings.db_pool_min, settings.db_pool_max),
            waitQueueTimeoutMS=timeout_ms,
            serverSelectionTimeoutMS=timeout_ms,
            connectTimeoutMS=timeout_ms,
            socketTimeoutMS=timeout_ms,
        )
        name = parse_uri(uri)["database"] or DEFAULT_DATABASE
        self.database: AsyncIOMotorDatabase[Document] = self._client[name]
        self._collections: dict[str, Collection] = {}
        self._pool_max, self._pool_min = settings.db_pool_max, min(settings.db_pool_min, settings.db_pool_max)
        self._timeout_s = settings.mongo_timeout_s
        self._clock = clock
        self._prepare = prepare
        self._prepared = False
        self._metrics = metrics
        self._breaker = Breaker("MongoDB", metrics)
        self._probe = StoreProbe(clock)
        metrics.collect_pool("MongoDB", self._pool)

    def collection(self, name: str) -> Collection:
        """Return a collection; every call on it belongs inside `guard()`."""
        found = self._collections.get(name)
        if found is None:  # making one takes the driver 25 µs, and stores are made by the request
            found = self._collections[name] = self.database[name]
        return found

    def guard(self, command: str) -> StoreGuard:
        """Return the context in which calls on a collection run; `command` names them in logs and metrics."""
        return StoreGuard(
            breaker=self._breaker,
            command=command,
            timeout_s=self._timeout_s,
            unavailable=UNAVAILABLE,
            clock=self._clock,
            metrics=self._metrics,
        )

    @property
    def health(self) -> StoreHealth:
        """What the probe last saw; no I/O."""
        return self._probe.health(pool=self._pool())

    def _pool(self) -> dict[str, int]:
        gauge = self._gauge
        return {"max": self._pool_max, "min": self._pool_min, "open": gauge.open, "in_use": gauge.in_use}

    async def probe_forever(self) -> None:
        """Ask `hello` every second: closes or opens the breaker, sets the clock. Runs in the kit's tasks."""
        while True:
            await self.probe()
            await asyncio.sleep(PROBE_INTERVAL_S)

    async def probe(self) -> None:
        """Ask once. Never raises for an unreachable store."""
        started_s = self._clock.monotonic_s()
        try:
            async with asyncio.timeout(self._timeout_s):
                hello: Mapping[str, Any] = await self.database.command("hello", codec_options=_TZ_AWARE)
        except (pymongo.errors.PyMongoError, TimeoutError) as error:
            self._breaker.failed(error)
            self._probe.failed(error)
            return
        if not hello.get("isWritablePrimary"):
            primary_missing = StoreUnavailableError("MongoDB")
            self._breaker.failed(primary_missing)
            self._probe.failed(primary_missing)
            return
        ended_s = self._clock.monotonic_s()
        self._clock.adjust(hello["localTime"], asked_s=started_s, answered_s=ended_s)
        self._breaker.succeeded()
        if self._prepared or await self._try_to_prepare():
            self._probe.passed(latency_s=ended_s - started_s)

    async def _try_to_prepare(self) -> bool:
        try:
            await self._prepare(self)
        except pymongo.errors.PyMongoError as error:
            _log.error("indexes_not_made", extra={"reason": str(error), "hint": "run ./cargoflow migrate"})
            self._probe.failed(error)
            return False
        self._prepared = True
        return True

    def close(self) -> None:
        """Close all connections."""
        self._client.close()
