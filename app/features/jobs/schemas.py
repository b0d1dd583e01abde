"""Bodies of the jobs routes."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from app.core.moments import Timestamp
from app.http.schemas import JsonObject, ResponseModel, StrictModel
from app.state.job_desk import Retryable
from app.state.job_documents import JobState

TYPE_PATTERN = r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*$"
JobType = Annotated[str, Field(pattern=TYPE_PATTERN, max_length=64, examples=["forecasts.train"])]

_JOB: JsonObject = {
    "id": "job_4TFxkQm7JYpZr2sVnW8aBc",
    "type": "forecasts.train",
    "state": "completed",
    "attempts": 1,
    "crashes": 0,
    "result": {"model_id": "mdl_4TFxkQm7JYpZr2sVnW8aBc"},
    "created_at": "2026-01-31T10:00:00.000Z",
    "run_at": "2026-01-31T10:00:05.000Z",
    "started_at": "2026-01-31T10:00:05.020Z",
    "finished_at": "2026-01-31T10:00:09.310Z",
}
_COUNTS: JsonObject = {"pending": 3, "processing": 1, "completed": 1200, "failed": 2, "dead": 1}


class JobOut(ResponseModel):
    """How a job stands."""

    model_config = ConfigDict(json_schema_extra={"examples": [_JOB]})

    id: str
    type: str
    state: JobState
    """`failed` is tried again at `run_at`; `dead` is not, unless an admin says so."""
    attempts: int
    """Tries that ended in an error or took too long."""
    crashes: int
    """Tries that ended with their worker's death."""
    result: JsonObject | None
    created_at: Timestamp
    run_at: Timestamp
    """Before this moment it is not started."""
    started_at: Timestamp | None
    """When the last try began."""
    finished_at: Timestamp | None


class JobErrorOut(ResponseModel):
    """Why one try came to nothing."""

    at: Timestamp
    kind: Literal["error", "timeout", "crash"]
    message: str


class AdminJobOut(JobOut):
    """A job with what an admin needs to find out what is wrong with it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    **_JOB,
                    "user_id": "usr_4TFxkQm7JYpZr2sVnW8aBc",
                    "key": None,
                    "priority": 0,
                    "payload": {"origin": "HAM"},
                    "errors": [
                        {
                            "at": "2026-01-31T10:00:00.310Z",
                            "kind": "error",
                            "message": "TimeoutError: no answer",
                        }
                    ],
                }
            ]
        }
    )

    user_id: str
    """Who caused it; empty if nobody in particular."""
    key: str | None
    """Of this type, one unfinished job has it."""
    priority: int
    payload: JsonObject
    errors: list[JobErrorOut]
    """The last twenty, oldest first; kept through retries."""


class StateCounts(ResponseModel):
    """How many jobs are in each state. Completed ones are kept for 7 days, dead ones for 30."""

    model_config = ConfigDict(json_schema_extra={"examples": [_COUNTS]})

    pending: int
    processing: int
    completed: int
    failed: int
    """Waiting for another attempt."""
    dead: int
    """Given up."""


class TypeCounts(StateCounts):
    """The same for one type."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**_COUNTS, "paused": False}]})

    paused: bool


class QueueStatsOut(StateCounts):
    """The tenant's queues."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{**_COUNTS, "by_type": {"forecasts.train": {**_COUNTS, "paused": False}}}]
        }
    )

    by_type: dict[str, TypeCounts]


class RetryFilter(StrictModel):
    """Which jobs to try anew."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"type": "forecasts.train", "state": "dead"}]})

    state: Retryable
    type: JobType | None = None
    """Only jobs of this type."""


class RetriedOut(ResponseModel):
    """What a retry by filter did."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"retried": 200, "more": True}]})

    retried: int
    more: bool
    """Whether there were more than one call takes: repeat it."""


class QueueOut(ResponseModel):
    """Whether a type is paused for the tenant."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"type": "forecasts.train", "paused": True}]})

    type: str
    paused: bool
