"""The state kit: every shared-state primitive of one process, opened and closed together.

`open_kit` is what a replica's or a worker's lifespan enters. The background probes belong to its TaskGroup
and end with it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from app.core.clock import Clock, SystemClock
from app.core.metrics import Metrics
from app.core.passwords import Passwords
from app.core.settings import Settings, Tier
from app.core.tokens import AccessTokens
from app.core.version import VERSION
from app.state.accounts import Accounts
from app.state.api_keys import ApiKeys
from app.state.cache import Cache
from app.state.files import Files
from app.state.hot import HotCopies
from app.state.idempotency import Idempotency
from app.state.indexes import ensure_indexes
from app.state.job_desk import JobDesk
from app.state.job_index import JobIndex
from app.state.job_pauses import JobPauses
from app.state.job_tally import JobTally
from app.state.jobs import Jobs
from app.state.locks import Locks
from app.state.logins import Logins
from app.state.mongo import Document, MongoStore
from app.state.newest_first import NewestFirst
from app.state.principals import Principals
from app.state.processes import Identity, Kind, Processes
from app.state.rate_limits import Rate, RateLimits, parse_rate
from app.state.realtime import Realtime
from app.state.redis import RedisStore
from app.state.sessions import Sessions
from app.state.store_clock import StoreClock
from app.state.tenants import Tenants
from app.state.transactions import Transactions


@dataclass(frozen=True)
class StateKit:
    """What the edge and the features work with."""

    settings: Settings
    metrics: Metrics
    clock: StoreClock
    mongo: MongoStore
    redis: RedisStore
    processes: Processes
    transactions: Transactions
    idempotency: Idempotency
    hot: HotCopies
    limits: RateLimits
    tokens: AccessTokens
    principals: Principals
    passwords: Passwords
    tenants: Tenants
    accounts: Accounts
    logins: Logins
    api_keys: ApiKeys
    sessions: Sessions
    locks: Locks
    jobs: Jobs
    job_index: JobIndex
    job_pauses: JobPauses
    job_desk: JobDesk
    job_tally: JobTally
    cache: Cache
    realtime: Realtime
    newest_first: NewestFirst
    files: Files


def tier_rates(settings: Settings) -> Mapping[Tier, Rate]:
    """Return the rate of each tier; a policy is called like its tier."""
    return {
        "standard": parse_rate("standard", settings.limit_standard),
        "premium": parse_rate("premium", settings.limit_premium),
    }


@asynccontextmanager
async def open_kit(
    settings: Settings,
    *,
    metrics: Metrics | None = None,
    machine: Clock | None = None,
    kind: Kind = "command",
    draining: Callable[[], bool] = bool,
) -> AsyncIterator[StateKit]:
    """Open clients and start probing. Does not wait for the stores: with one of them gone the process starts
    and says so in `/ready`. `kind` and `draining` are what other processes see of this one.
    """
    metrics = metrics or Metrics()
    clock = StoreClock(machine or SystemClock())
    mongo = MongoStore(settings, clock, metrics, prepare=ensure_indexes)
    redis = RedisStore(settings, clock, metrics)
    hot = HotCopies(redis, metrics)
    limits = RateLimits(redis, clock, metrics)
    principals = Principals(
        redis=redis, mongo=mongo, hot=hot, limits=limits, clock=clock, tiers=tier_rates(settings)
    )
    passwords = Passwords()
    job_index = JobIndex(redis)
    job_tally = JobTally(redis=redis, index=job_index, clock=clock, metrics=metrics)
    processes = Processes(
        mongo=mongo,
        clock=clock,
        identity=Identity(settings.replica_name, kind, VERSION, url=_url(settings, kind)),
        vitals=lambda: _vitals(mongo, redis, metrics, draining),
    )
    transactions = Transactions(mongo=mongo, processes=processes, clock=clock)
    idempotency = Idempotency(
        mongo=mongo, transactions=transactions, clock=clock, settings=settings, metrics=metrics
    )
    kit = StateKit(
        settings=settings,
        metrics=metrics,
        clock=clock,
        mongo=mongo,
        redis=redis,
        processes=processes,
        transactions=transactions,
        idempotency=idempotency,
        hot=hot,
        limits=limits,
        tokens=AccessTokens(settings, clock),
        principals=principals,
        passwords=passwords,
        tenants=Tenants(mongo=mongo, clock=clock),
        accounts=Accounts(mongo=mongo, hot=hot, idempotency=idempotency, clock=clock),
        logins=Logins(mongo=mongo, hot=hot, clock=clock, settings=settings),
        api_keys=ApiKeys(mongo=mongo, hot=hot, clock=clock),
        jobs=Jobs(mongo=mongo, index=job_index, clock=clock),
        job_index=job_index,
        job_pauses=JobPauses(mongo=mongo, index=job_index, clock=clock),
        job_desk=JobDesk(mongo=mongo, index=job_index, clock=clock),
        job_tally=job_tally,
        sessions=Sessions(mongo=mongo, hot=hot, idempotency=idempotency, clock=clock),
        locks=Locks(
            mongo=mongo, processes=processes, clock=clock, metrics=metrics, holder=settings.replica_name
        ),
        cache=Cache(redis=redis, hot=hot, clock=clock, metrics=metrics),
        realtime=Realtime(redis=redis, clock=clock, metrics=metrics),
        newest_first=NewestFirst(mongo=mongo, redis=redis, clock=clock),
        files=Files(mongo=mongo, clock=clock),
    )
    try:
        async with asyncio.TaskGroup() as probes:
            tasks = [
                probes.create_task(mongo.probe_forever()),
                probes.create_task(hot.beat_forever()),
                probes.create_task(job_tally.look_forever()),
                probes.create_task(processes.beat_forever()),
                probes.create_task(processes.sweep_forever()),
                probes.create_task(kit.realtime.listen_forever()),
            ]
            try:
                yield kit
            finally:
                for task in tasks:
                    task.cancel()
        await processes.leave()
    finally:
        passwords.close()
        mongo.close()
        await redis.close()


def _url(settings: Settings, kind: Kind) -> str | None:
    """Return where a replica listens; None where that is every address, and for others."""
    if kind != "replica" or settings.host in {"0.0.0.0", "::"}:  # noqa: S104  # it is compared, not bound
        return None
    return f"http://{settings.host}:{settings.port}"


def _vitals(mongo: MongoStore, redis: RedisStore, metrics: Metrics, draining: Callable[[], bool]) -> Document:
    return {
        "pools": {"mongo": mongo.health.pool, "redis": redis.health.pool},
        "in_flight": metrics.in_flight,
        "draining": draining(),
    }
