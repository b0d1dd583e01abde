"""What comes of a run: medians over the rounds, as numbers and as the JSON document."""

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from bench.measure import Sample
from bench.reviewers import Reviewers
from bench.scenario import Scenario
from bench.steady import Steady


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for."""

    scenarios: Sequence[str]
    rounds: int
    seconds: int
    connections: int
    users: int
    replicas: int


@dataclass(frozen=True, slots=True)
class Round:
    """The floor and the application, measured one right after the other."""

    floor: Sample
    application: Sample

    @property
    def ratio(self) -> float:
        """How many times the floor's CPU a request of the application costs."""
        return self.application.cpu_ms / self.floor.cpu_ms


@dataclass(frozen=True, slots=True)
class Result:
    """All rounds of one scenario."""

    scenario: Scenario
    rounds: Sequence[Round]

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios: what slows the machine down for a while slows both halves."""
        return median(round_.ratio for round_ in self.rounds)

    @property
    def application(self) -> Sample:
        """The medians of the application; errors are added up."""
        return _middle([round_.application for round_ in self.rounds])

    @property
    def floor(self) -> Sample:
        """The medians of the floor; errors are added up."""
        return _middle([round_.floor for round_ in self.rounds])


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run. `steady` and `reviewers` are None where they were not asked for."""

    plan: Plan
    results: Sequence[Result]
    steady: Steady | None
    reviewers: Reviewers | None

    def document(self) -> dict[str, Any]:
        """Return what `--json` prints; CPU is in CPU-seconds of all replicas a thousand requests."""
        return {
            "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
            "plan": asdict(self.plan),
            "scenarios": {result.scenario.name: _result(result) for result in self.results},
            "steady": None if self.steady is None else _figures(self.steady),
            "reviewers": None if self.reviewers is None else _figures(self.reviewers),
        }


def _middle(samples: Sequence[Sample]) -> Sample:
    def of(field: Callable[[Sample], float]) -> float:
        return median(map(field, samples))

    return Sample(
        requests_per_s=of(lambda sample: sample.requests_per_s),
        p50_ms=of(lambda sample: sample.p50_ms),
        p95_ms=of(lambda sample: sample.p95_ms),
        p99_ms=of(lambda sample: sample.p99_ms),
        errors=sum(sample.errors for sample in samples),
        cpu_ms=of(lambda sample: sample.cpu_ms),
    )


def _result(result: Result) -> dict[str, Any]:
    return {
        "does": result.scenario.does,
        "floor_does": result.scenario.floor_does,
        **_figures(result.application),
        "floor": _figures(result.floor),
        "ratio": round(result.ratio, 3),
        "ratios": [round(each.ratio, 3) for each in result.rounds],
        "bar": result.scenario.bar,
    }


def _figures(measured: Sample | Steady | Reviewers) -> dict[str, Any]:
    figures = {name: round(value, 3) for name, value in asdict(measured).items()}
    figures["cpu_s_per_1000"] = figures.pop("cpu_ms")
    return figures
