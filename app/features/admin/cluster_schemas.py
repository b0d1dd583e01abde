"""What `GET /admin/cluster` answers."""

from typing import Literal

from app.core.moments import Timestamp
from app.http.schemas import ResponseModel


class ProcessOut(ResponseModel):
    """A replica or worker, as its last beat told."""

    name: str
    version: str
    started_at: Timestamp
    beat_age_ms: int
    """How long ago it last said that it lives; after 1,200 ms it is taken for dead."""
    draining: bool
    in_flight: int
    """Requests under way."""
    pools: dict[str, dict[str, int]]
    """Sizes of its connection pools, by store."""


class StoreOut(ResponseModel):
    """A store, as the replica that answers saw it last."""

    status: Literal["pass", "fail"]
    age_ms: int
    latency_ms: float | None
    """How long it took to answer; null when it did not."""


class LockOut(ResponseModel):
    """A lock that somebody holds. Whose and what for is left out: it may be another tenant's."""

    kind: str
    token: int
    """Only grows, one a holder, within one lock."""
    holder: str
    """The process that holds it."""
    since: Timestamp
    expires_at: Timestamp


class ClusterOut(ResponseModel):
    """Everything that runs, and how it stands."""

    answered_by: str
    replicas: list[ProcessOut]
    workers: list[ProcessOut]
    stores: dict[str, StoreOut]
    locks: list[LockOut]
