"""The states of a job and what each change of state writes. The machine is drawn in docs/jobs.md.

Each function returns the fields of one change, for the `$set` of an update pipeline; `guarded` makes them
depend on the lease. Who applies them names the job's id and epoch in the filter: a claim raises the epoch, so
what an earlier holder has to say matches nothing.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from app.state.job_documents import (
    COMPLETED_KEPT_DAYS,
    DEAD_KEPT_DAYS,
    ERRORS_KEPT,
    MESSAGE_MAX_CHARACTERS,
    JobError,
)
from app.state.mongo import Document, from_now, literal

LEASE_RUNS: Document = {"$gt": [{"$toLong": "$lease_expires_at"}, {"$toLong": "$$NOW"}]}
"""On MongoDB's clock; false without a lease. Numbers, since the local cluster's engine finds no order between
a stored date and `$$NOW`.
"""
LEASE_OVER: Document = {"$not": [LEASE_RUNS]}

_DAY_MS = 86_400_000
_REMOVE = "$$REMOVE"
_LEFT: Document = {"lease_expires_at": _REMOVE, "worker": _REMOVE, "beats": _REMOVE}


def guarded(condition: Document, changes: Document) -> list[Document]:
    """Return a pipeline that makes these changes if the condition holds, and none otherwise."""
    return [{"$set": {name: {"$cond": [condition, value, f"${name}"]} for name, value in changes.items()}}]


def claimed(*, epoch: int, lease_ms: int, worker: str) -> Document:
    """Somebody works on it: until the lease is over nobody else may."""
    return {
        "state": "processing",
        "epoch": epoch,
        "lease_expires_at": from_now(lease_ms),
        "worker": literal(worker),
        "started_at": "$$NOW",
        "beats": 0,
        "slice": _REMOVE,
    }


def completed(result: Mapping[str, Any] | None) -> Document:
    """It is done. The key is free again."""
    return {"state": "completed", "result": literal(result), **_over(COMPLETED_KEPT_DAYS)}


def failed(kind: Literal["error", "timeout", "crash"], message: str, *, run_at: datetime) -> Document:
    """This try came to nothing; the next one is due at `run_at`."""
    return {"state": "failed", "run_at": run_at, "slice": "$slot", **_LEFT, **_recorded(kind, message)}


def dead(kind: Literal["error", "timeout", "crash"], message: str) -> Document:
    """It is given up, with its history. The key is free again."""
    return {"state": "dead", **_over(DEAD_KEPT_DAYS), **_recorded(kind, message)}


def handed_back(*, run_at: datetime) -> Document:
    """Its worker leaves: anybody may start it, and no try is counted."""
    return {"state": "pending", "run_at": run_at, "slice": "$slot", **_LEFT}


def renewed(lease_ms: int) -> Document:
    """Its holder lives. `beats` makes it a change of the row even within one millisecond."""
    return {"lease_expires_at": from_now(lease_ms), "beats": {"$add": ["$beats", 1]}}


def retried(*, run_at: datetime, unique_key: str | None) -> Document:
    """An operator wants it tried anew: counters start again, the history stays."""
    return {
        "state": "pending",
        "run_at": run_at,
        "slice": "$slot",
        "attempts": 0,
        "crashes": 0,
        "finished_at": None,
        "expires_at": _REMOVE,
        "held_by": _REMOVE,
        **({} if unique_key is None else {"unique_key": literal(unique_key)}),
    }


def last_error(errors: tuple[JobError, ...]) -> str | None:
    """Return what went wrong last, if anything did."""
    return errors[-1].message if errors else None


def _over(kept_days: int) -> Document:
    return {
        "finished_at": "$$NOW",
        "expires_at": from_now(kept_days * _DAY_MS),
        "unique_key": _REMOVE,
        **_LEFT,
    }


def _recorded(kind: str, message: str) -> Document:
    storable = message.encode(errors="backslashreplace").decode()  # an error may quote half a character
    counter = "crashes" if kind == "crash" else "attempts"
    error = {
        "at": "$$NOW",
        "kind": kind,
        "message": literal(storable[:MESSAGE_MAX_CHARACTERS]),
        "worker": "$worker",
    }
    return {
        counter: {"$add": [f"${counter}", 1]},
        "errors": {"$slice": [{"$concatArrays": ["$errors", [error]]}, -ERRORS_KEPT]},
    }
