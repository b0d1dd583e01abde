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
    """Connections of its pools by store: how many there may be, are open, and are in use."""


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


class QueuesOut(ResponseModel):
    """How many of the tenant's jobs are in which state; `/admin/queue-stats` has them by type."""

    pending: int
    processing: int
    completed: int
    failed: int
    dead: int


class ClusterOut(ResponseModel):
    """Everything that runs, and how it stands."""

    answered_by: str
    replicas: list[ProcessOut]
    workers: list[ProcessOut]
    stores: dict[str, StoreOut]
    locks: list[LockOut]
    queues: QueuesOut
