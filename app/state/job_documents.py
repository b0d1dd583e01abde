"""A job as it is asked for, as it is stored, and as it is shown.

Document in `jobs`: {_id job_…, type, tenant_id, user_id, payload, key, unique_key?, priority, run_at, state,
epoch, attempts, crashes, errors: [{at, kind, message, worker}], result, slot, slice?, lease_expires_at?,
worker?, beats?, held_by?, created_at, started_at, finished_at, expires_at?}. Fields with a `?` are
there only while they mean something, so that a sparse index of one holds only the documents it is about:
- `slice` while the job waits and is not held: what finds it without the index in Redis. It equals `slot`, a
  number below SLICES drawn once, so that one look sees a thirty-second of what waits.
- `lease_expires_at`, `worker`, `beats` while it is processing; `held_by` while a pause keeps it.
- `unique_key` until it is over: one unfinished job a tenant, type and key.
"""

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from app.core.errors import ConflictError
from app.core.ids import new_id
from app.core.moments import to_the_millisecond
from app.state.mongo import Document

JobState = Literal["pending", "processing", "completed", "failed", "dead"]
"""`failed` waits for another attempt; `dead` is the dead letter."""

WAITING: tuple[JobState, ...] = ("pending", "failed")
SLICES = 32
ERRORS_KEPT = 20
"""Of a job; the oldest go first."""
MESSAGE_MAX_CHARACTERS = 500
COMPLETED_KEPT_DAYS = 7
DEAD_KEPT_DAYS = 30
PRIORITY_MAX = 100
_TYPE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")
_TYPE_MAX_CHARACTERS = 64


class JobNotRetryableError(ConflictError):
    """The job is in a state from which there is nothing to retry."""

    code, title = "invalid_transition", "Not possible in this state"

    def __init__(self, state: JobState) -> None:
        """Say which states can be retried."""
        super().__init__(
            f"The job is {state}; only jobs that are failed or dead can be retried.",
            extra={"state": state, "allowed": ["failed", "dead"]},
        )


class JobSupersededError(ConflictError):
    """A job with the same unique key is unfinished: a second one may not be."""

    code, title = "job_superseded", "Another job does this"

    def __init__(self) -> None:
        """Name no ids: the other job is found in the list by its key."""
        super().__init__("Another unfinished job has the same key; this one can't run beside it.")


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to be enqueued. `id` makes enqueuing it again harmless; `key` makes it one of a kind.

    `payload` is a small JSON object: large things go by their id. A higher `priority` (at most PRIORITY_MAX
    either way) is claimed first; `run_at` is the moment before which it is not claimed, give or take a tenth
    of a second. `key`: while a job of this tenant and type with the same key is unfinished, this one is not
    added. Raises ValueError for a type or a priority that can't be.
    """

    type: str
    payload: Mapping[str, Any]
    tenant_id: str = ""
    user_id: str = ""
    key: str | None = None
    priority: int = 0
    run_at: datetime | None = None
    id: str = field(default_factory=lambda: new_id("job"))

    def __post_init__(self) -> None:
        check_type(self.type)
        if abs(self.priority) > PRIORITY_MAX:
            raise ValueError(f"a priority lies between {-PRIORITY_MAX} and {PRIORITY_MAX}")

    def document(self, now: datetime) -> Document:
        """Return the row as it is inserted, or put into an outbox, at `now`."""
        created_at = to_the_millisecond(now)
        slot = random.randrange(SLICES)  # noqa: S311  # spreads rows evenly, hides nothing
        unique = {} if self.key is None else {"unique_key": unique_key(self.tenant_id, self.type, self.key)}
        return {
            "_id": self.id,
            "type": self.type,
            "tenant_id": self.tenant_id,
            "user_id": self.user_id,
            "payload": dict(self.payload),
            "key": self.key,
            **unique,
            "priority": self.priority,
            "run_at": created_at if self.run_at is None else to_the_millisecond(self.run_at),
            "state": "pending",
            "epoch": 0,
            "attempts": 0,
            "crashes": 0,
            "errors": [],
            "result": None,
            "slot": slot,
            "slice": slot,
            "created_at": created_at,
            "started_at": None,
            "finished_at": None,
        }


@dataclass(frozen=True, slots=True)
class JobError:
    """Why one try of a job came to nothing.

    `error`: the handler raised. `timeout`: it took too long. `crash`: whoever ran it died or lost its lease.
    """

    at: datetime
    kind: Literal["error", "timeout", "crash"]
    message: str


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stands. `attempts` ended in an error, `crashes` with their worker's death."""

    id: str
    type: str
    tenant_id: str
    user_id: str
    payload: Mapping[str, Any]
    key: str | None
    priority: int
    state: JobState
    epoch: int
    attempts: int
    crashes: int
    errors: tuple[JobError, ...]
    result: Mapping[str, Any] | None
    run_at: datetime
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


def job_from(row: Document) -> Job:
    """Return the job that a row of `jobs` holds."""
    return Job(
        id=row["_id"],
        type=row["type"],
        tenant_id=row["tenant_id"],
        user_id=row["user_id"],
        payload=row["payload"],
        key=row["key"],
        priority=row["priority"],
        state=row["state"],
        epoch=row["epoch"],
        attempts=row["attempts"],
        crashes=row["crashes"],
        errors=tuple(JobError(error["at"], error["kind"], error["message"]) for error in row["errors"]),
        result=row["result"],
        run_at=row["run_at"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
    )


def check_type(job_type: str) -> None:
    """Raise ValueError for what can't be a type: it becomes part of keys and a label of metrics."""
    if len(job_type) > _TYPE_MAX_CHARACTERS or not _TYPE.fullmatch(job_type):
        raise ValueError(f"{job_type!r} is not a type of job such as mail.password_reset")


def unique_key(tenant_id: str, job_type: str, key: str) -> str:
    """Return the value that at most one unfinished job has."""
    return f"{tenant_id}:{job_type}:{key}"


def backoff(tries: int, *, first_s: float, longest_s: float) -> timedelta:
    """Return how long to wait after that many tries in vain: doubling, capped, and half of it drawn by lot.

    Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015 ("equal jitter").
    """
    whole_s = min(longest_s, first_s * 2 ** min(tries - 1, 30))
    return timedelta(seconds=random.uniform(whole_s / 2, whole_s))  # noqa: S311  # spreads retries
