"""What a process counts about itself, in Prometheus' text format.

One `Metrics` a process, with its own registry: nothing is global, and tests make as many as they like. The
hot counters are plain numbers in dicts that become metric families when somebody scrapes: an observation
costs half a microsecond, a tenth of prometheus_client's own.

Names start with `cargoflow_`. Labels are bounded by construction: route templates and never paths, status
classes, names that the code itself gives to commands, caches and policies. Counters start at zero with the
process, as Prometheus expects.

Methods are called from the event loop's thread only: plain `+=` is not atomic between threads.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from app.core.clock import Clock, SystemClock
from app.core.job_metrics import JobFigures, job_families

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
SLOW_STORE_COMMAND_S: Final = 1.0
"""Store commands at least this slow are counted separately."""

_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_KNOWN_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))

PoolReader = Callable[[], Mapping[str, int]]
"""Returns the sizes of a connection pool by name, such as `{"max": 50, "in_use": 3}`; no I/O."""


class _Durations:
    """A histogram per label values: one list of bucket counts each, the sum of seconds at its end."""

    def __init__(self, name: str, help_text: str, labels: Sequence[str]) -> None:
        self._name, self._help, self._labels = name, help_text, labels
        self.rows: dict[tuple[str, ...], list[float]] = {}

    def observe(self, labels: tuple[str, ...], seconds: float) -> None:
        row = self.rows.get(labels)
        if row is None:
            row = self.rows[labels] = [0] * (len(_BUCKETS_S) + 1) + [0.0]
        row[bisect_left(_BUCKETS_S, seconds)] += 1
        row[-1] += seconds

    def family(self) -> Metric:
        family = HistogramMetricFamily(self._name, self._help, labels=self._labels)
        for labels, row in self.rows.items():
            total = 0.0
            buckets = []
            for bound, count in zip((*map(str, _BUCKETS_S), "+Inf"), row, strict=False):
                total += count
                buckets.append((bound, total))
            family.add_metric(labels, buckets, row[-1])
        return family


class _Counts:
    """A counter per label values."""

    def __init__(self, name: str, help_text: str, labels: Sequence[str]) -> None:
        self._name, self._help, self._labels = name, help_text, labels
        self.rows: dict[tuple[str, ...], int] = {}

    def add(self, *labels: str, amount: int = 1) -> None:
        self.rows[labels] = self.rows.get(labels, 0) + amount

    def family(self) -> Metric:
        family = CounterMetricFamily(self._name, self._help, labels=self._labels)
        for labels, count in self.rows.items():
            family.add_metric(labels, count)
        return family


class Metrics(Collector):
    """Counts events as they are reported; `exposition()` renders them all."""

    def __init__(self, clock: Clock | None = None) -> None:
        """`clock` measures the uptime; the machine's own unless given."""
        self._clock = clock or SystemClock()
        self._started_s = self._clock.monotonic_s()
        self._requests = _Durations(
            "cargoflow_http_request_duration_seconds",
            "Requests by route template and class of status, until the response's end.",
            ("method", "template", "status"),
        )
        self._commands = _Durations(
            "cargoflow_store_command_duration_seconds",
            "Calls to MongoDB and Redis; outcome is ok, error, timeout or unavailable.",
            ("store", "command", "outcome"),
        )
        self._slow = _Counts(
            "cargoflow_store_slow_commands",
            f"Calls to a store that took {SLOW_STORE_COMMAND_S:g} s or longer.",
            ("store", "command"),
        )
        self._hot_reads = _Counts(
            "cargoflow_hot_reads", "Reads of hot copies by outcome.", ("cache", "outcome")
        )
        self._cache_reads = _Counts(
            "cargoflow_cache_reads", "Reads through the cache by kind and outcome.", ("kind", "outcome")
        )
        self._cache_load_failures = _Counts(
            "cargoflow_cache_load_failures", "Loads for the cache that failed.", ("kind",)
        )
        self._realtime = _Counts(
            "cargoflow_realtime", "Events and subscriptions by kind of channel.", ("kind", "outcome")
        )
        self._chat_runs = _Counts("cargoflow_chat_runs", "Runs by how they ended.", ("outcome",))
        self._chat_tokens = _Counts("cargoflow_chat_tokens", "Tokens of language models.", ("kind",))
        self._limited = _Counts("cargoflow_rate_limited", "Requests refused by a rate limit.", ("policy",))
        self._logins = _Counts("cargoflow_logins", "Attempts to log in by outcome.", ("outcome",))
        self._locks = _Counts(
            "cargoflow_locks", "Locks by kind and what became of them.", ("kind", "outcome")
        )
        self._idempotent = _Counts(
            "cargoflow_idempotent_requests",
            "Requests with an Idempotency-Key: first, replayed, reused or in_flight.",
            ("outcome",),
        )
        self._lock_tokens: dict[str, int] = {}
        self._jobs: JobFigures | None = None
        self._breakers: dict[str, bool] = {}
        self._pools: dict[str, PoolReader] = {}
        self._in_flight: Callable[[], int] = int
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(namespace="cargoflow", registry=self._registry)

    def http_request(self, method: str, template: str, status: int, seconds: float) -> None:
        """Count one answered request.

        `template` is the route's, such as `/api/v1/sessions/{session_id}`, never the path.
        """
        known = method if method in _KNOWN_METHODS else "OTHER"
        self._requests.observe((known, template, f"{status // 100}xx"), seconds)

    def store_command(self, store: str, command: str, seconds: float, outcome: str) -> None:
        """Count one call to a store; `command` is a name from the code, such as `sessions.find`."""
        self._commands.observe((store, command, outcome), seconds)
        if seconds >= SLOW_STORE_COMMAND_S:
            self._slow.add(store, command)

    def breaker(self, store: str, *, open: bool) -> None:  # noqa: A002  # it reads as `breaker("Redis", open=True)`
        """Say whether the breaker of a store is open."""
        self._breakers[store] = open

    def hot_read(self, cache: str, outcome: str) -> None:
        """Count one read of a hot copy: `hit`, `miss` or another outcome."""
        self._hot_reads.add(cache, outcome)

    def cache_read(self, kind: str, outcome: str) -> None:
        """Count one read through the cache: `hit`, `miss`, `stale` or `bypass`."""
        self._cache_reads.add(kind, outcome)

    def cache_load_failed(self, kind: str) -> None:
        """Count one load for the cache that failed."""
        self._cache_load_failures.add(kind)

    def realtime(self, kind: str, outcome: str) -> None:
        """Count an event that was `appended`, `repeated` or `refused`, or a subscription that was
        `recovered`, `unrecovered`, or ended: `slow`, `gap`.
        """
        self._realtime.add(kind, outcome)

    def chat_run(self, outcome: str) -> None:
        """Count a run that is `done`, `failed` or `stopped`."""
        self._chat_runs.add(outcome)

    def chat_tokens(self, kind: str, amount: int) -> None:
        """Count tokens of a `prompt` or a `completion`."""
        self._chat_tokens.add(kind, amount=amount)

    def rate_limited(self, policy: str) -> None:
        """Count one request refused by the limit called `policy`."""
        self._limited.add(policy)

    def login(self, outcome: str) -> None:
        """Count one attempt to log in: `ok`, `refused` or another outcome."""
        self._logins.add(outcome)

    def lock(self, kind: str, outcome: str, token: int) -> None:
        """Count one lock that was `taken`, `refused`, `released` or had another outcome.

        `kind` is what its name starts with; `token` is the fencing token the lock had then.
        """
        self._locks.add(kind, outcome)
        self._lock_tokens[kind] = max(token, self._lock_tokens.get(kind, 0))

    def jobs(self, figures: JobFigures) -> None:
        """Show these figures of the cluster's job queues from now on."""
        self._jobs = figures

    def idempotent(self, outcome: str) -> None:
        """Count one request with an Idempotency-Key: `first`, `replayed`, `reused` or `in_flight`."""
        self._idempotent.add(outcome)

    def collect_pool(self, store: str, reader: PoolReader) -> None:
        """Show a connection pool: `reader` is asked at every scrape."""
        self._pools[store] = reader

    def collect_in_flight(self, reader: Callable[[], int]) -> None:
        """Show how many requests are under way: `reader` is asked at every scrape."""
        self._in_flight = reader

    @property
    def in_flight(self) -> int:
        """How many requests are under way."""
        return self._in_flight()

    def exposition(self) -> bytes:
        """Render everything in the text format that CONTENT_TYPE names."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield the metric families; the registry calls this at every scrape."""
        yield self._requests.family()
        yield self._totals()
        yield GaugeMetricFamily("cargoflow_http_in_flight", "Requests under way.", value=self._in_flight())
        yield self._commands.family()
        for counts in (
            self._slow,
            self._hot_reads,
            self._limited,
            self._logins,
            self._locks,
            self._idempotent,
        ):
            yield counts.family()
        for counts in (self._cache_reads, self._cache_load_failures, self._realtime):
            yield counts.family()
        for counts in (self._chat_runs, self._chat_tokens):
            yield counts.family()
        tokens = GaugeMetricFamily(
            "cargoflow_lock_token_max", "The highest fencing token seen, by kind of lock.", labels=("kind",)
        )
        for kind, token in self._lock_tokens.items():
            tokens.add_metric((kind,), token)
        yield tokens
        breakers = GaugeMetricFamily(
            "cargoflow_breaker_open", "1 while calls to the store fail at once.", labels=("store",)
        )
        for store, is_open in self._breakers.items():
            breakers.add_metric((store,), int(is_open))
        yield breakers
        pools = GaugeMetricFamily(
            "cargoflow_store_pool", "Connections of a store's pool.", labels=("store", "state")
        )
        for store, reader in self._pools.items():
            for state, size in reader().items():
                pools.add_metric((store, state), size)
        yield pools
        if self._jobs is not None:
            yield from job_families(self._jobs, self._clock.monotonic_s())
        uptime_s = self._clock.monotonic_s() - self._started_s
        yield GaugeMetricFamily(
            "cargoflow_uptime_seconds", "Seconds since this process started counting.", value=uptime_s
        )

    def _totals(self) -> Metric:
        family = CounterMetricFamily(
            "cargoflow_http_requests",
            "Requests answered, by class of status.",
            labels=("method", "template", "status"),
        )
        for labels, row in self._requests.rows.items():
            family.add_metric(labels, sum(row[:-1]))
        return family
