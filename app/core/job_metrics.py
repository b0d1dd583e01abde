"""What the whole cluster's job queues look like, as metric families.

Workers have no HTTP: they add what they count to a tally in Redis, and each replica shows what its background
task last saw of it. So these figures are the same on every replica: take `max by (type)` over the instances,
not `sum`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

JOB_BUCKETS_S: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0)


@dataclass(frozen=True, slots=True)
class JobFigures:
    """One look at the queues. All by type of job."""

    seen_s: float
    """When, in the clock's monotonic seconds."""
    ready: Mapping[str, int] = field(default_factory=dict)
    later: Mapping[str, int] = field(default_factory=dict)
    oldest_s: Mapping[str, float] = field(default_factory=dict)
    outcomes: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """By type and outcome."""
    durations: Mapping[str, list[float]] = field(default_factory=dict)
    """A count for each of JOB_BUCKETS_S and one beyond, then the sum of seconds."""


def job_families(figures: JobFigures, now_s: float) -> Iterator[Metric]:
    """Yield the metric families of one look."""
    depth = GaugeMetricFamily(
        "cargoflow_job_queue_depth",
        "Jobs that wait, in the whole cluster: ready (due) or later.",
        labels=("type", "state"),
    )
    for state, counts in (("ready", figures.ready), ("later", figures.later)):
        for job_type, count in counts.items():
            depth.add_metric((job_type, state), count)
    yield depth
    oldest = GaugeMetricFamily(
        "cargoflow_job_oldest_seconds", "How long the next job of a type has been due.", labels=("type",)
    )
    for job_type, seconds in figures.oldest_s.items():
        oldest.add_metric((job_type,), seconds)
    yield oldest
    outcomes = CounterMetricFamily(
        "cargoflow_jobs",
        "Tries of jobs in the whole cluster: completed, failed, dead, crashed, lost or handed_back.",
        labels=("type", "outcome"),
    )
    for labels, count in figures.outcomes.items():
        outcomes.add_metric(labels, count)
    yield outcomes
    yield _durations(figures.durations)
    yield GaugeMetricFamily(
        "cargoflow_job_figures_age_seconds",
        "How old the figures about jobs are.",
        value=max(0.0, now_s - figures.seen_s),
    )


def _durations(rows: Mapping[str, list[float]]) -> Metric:
    family = HistogramMetricFamily(
        "cargoflow_job_duration_seconds",
        "How long handlers ran, whatever came of it, in the whole cluster.",
        labels=("type",),
    )
    for job_type, row in rows.items():
        total = 0.0
        buckets = []
        for bound, count in zip((*map(str, JOB_BUCKETS_S), "+Inf"), row, strict=False):
            total += count
            buckets.append((bound, total))
        family.add_metric((job_type,), buckets, row[-1])
    return family
