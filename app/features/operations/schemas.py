"""What operations answers."""

from typing import Literal

from pydantic import ConfigDict

from app.http.schemas import ResponseModel


class Health(ResponseModel):
    """The process runs and its event loop turns."""

    status: Literal["pass"]
    replica: str
    version: str


class Check(ResponseModel):
    """One dependency, as a background probe saw it last."""

    status: Literal["pass", "fail"]
    age_ms: int
    """How long ago the probe finished."""
    latency_ms: float | None
    """How long the dependency took to answer; null when it did not."""
    detail: str
    pool: dict[str, int]


class Readiness(ResponseModel):
    """`pass`; `warn` when the replica serves without something; `fail` when it should get no requests."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    status: Literal["pass", "warn", "fail"]
    replica: str
    checks: dict[str, Check]
    code: str | None = None
    """Why it fails: `draining` or `store_unavailable`."""
    detail: str | None = None


class CacheStats(ResponseModel):
    """Reads of hot copies and of the cache over the whole cluster, since Redis was last emptied."""

    hits: int
    reads: int
    hit_ratio: float | None
    """Null before the first read."""
    by_kind: dict[str, dict[str, int]]
    """Reads by kind and outcome: hot copies by kind of document, entries of the cache as `cache/…`, for which
    `load_failed` counts the loads that failed.
    """


class ProblemDescription(ResponseModel):
    """What an error code means."""

    code: str
    status: int
    title: str
    description: str
