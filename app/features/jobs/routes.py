"""`/jobs` for who caused one, `/admin/jobs` and `/admin/queues` for admins: their tenant's, and no other's.

Pausing is of one tenant and one type: an admin can't stop another tenant's jobs.
"""

from typing import Annotated

from fastapi import Path, Query, Response

from app.core.moments import from_milliseconds, to_milliseconds
from app.features.jobs import service
from app.features.jobs.schemas import (
    TYPE_PATTERN,
    AdminJobOut,
    JobErrorOut,
    JobOut,
    JobType,
    QueueOut,
    QueueStatsOut,
    RetriedOut,
    RetryFilter,
    TypeCounts,
)
from app.http.admission import Admin, Caller, Kit
from app.http.paging import LIMIT_DEFAULT, PageCursor, PageLimit, decode_cursor, page_of
from app.http.responses import JsonResponse
from app.http.routing import ApiRouter
from app.http.schemas import Page
from app.state.job_documents import Job, JobState

router = ApiRouter(tags=["Jobs"])

QueueType = Annotated[str, Path(pattern=TYPE_PATTERN, max_length=64, description="A type of job.")]


@router.get("/jobs/{job_id}", response_model=JobOut, summary="Read a job")
async def read_job(job_id: str, kit: Kit, caller: Caller) -> Response:
    """Show how a job stands that the caller caused; staff see all of the tenant's."""
    return JsonResponse(JobOut(**_fields(await service.get(kit, caller, job_id))))


@router.get("/admin/queue-stats", response_model=QueueStatsOut, summary="Count jobs")
async def read_queue_stats(kit: Kit, caller: Admin) -> Response:
    """Count the tenant's jobs by state, and by type and state."""
    stats, paused = await service.stats(kit, caller.tenant_id)
    none = dict.fromkeys(stats.total, 0)
    by_type = {
        job_type: TypeCounts(**stats.by_type.get(job_type, none), paused=job_type in paused)
        for job_type in sorted({*stats.by_type, *paused})
    }
    return JsonResponse(QueueStatsOut(**stats.total, by_type=by_type))


@router.get("/admin/jobs", response_model=Page[AdminJobOut], summary="List jobs")
async def list_jobs(
    kit: Kit,
    caller: Admin,
    *,
    job_type: Annotated[JobType | None, Query(alias="type", description="Only jobs of this type.")] = None,
    state: Annotated[JobState | None, Query(description="Only jobs in this state.")] = None,
    cursor: PageCursor = None,
    limit: PageLimit = LIMIT_DEFAULT,
) -> Response:
    """List the tenant's jobs, newest first, with payload and errors."""
    position = decode_cursor("jobs", cursor, (int, str))
    before = None if position is None else (from_milliseconds(int(position[0])), str(position[1]))
    found = await kit.job_desk.page(
        tenant_id=caller.tenant_id, job_type=job_type, state=state, before=before, limit=limit + 1
    )
    page = page_of(
        found, limit=limit, kind="jobs", position_of=lambda job: (to_milliseconds(job.created_at), job.id)
    )
    return JsonResponse({**page, "items": [_shown(job) for job in page["items"]]})


@router.post("/admin/jobs/retry", response_model=RetriedOut, summary="Retry jobs by type and state")
async def retry_jobs(body: RetryFilter, kit: Kit, caller: Admin) -> Response:
    """Try anew what failed or is dead, oldest first, 200 jobs a call.

    Jobs whose key another unfinished job has stay as they are.
    """
    retried, more = await kit.job_desk.retry_all(
        tenant_id=caller.tenant_id, job_type=body.type, state=body.state
    )
    return JsonResponse(RetriedOut(retried=retried, more=more))


@router.post("/admin/jobs/{job_id}/retry", response_model=AdminJobOut, summary="Retry a job")
async def retry_job(job_id: str, kit: Kit, caller: Admin) -> Response:
    """Try a failed or dead job anew, at once; its counters start again, its errors stay.

    `409 invalid_transition` in any other state, `409 job_superseded` if another unfinished job has its key.
    """
    return JsonResponse(_shown(await kit.job_desk.retry(tenant_id=caller.tenant_id, job_id=job_id)))


@router.post("/admin/queues/{job_type}/pause", response_model=QueueOut, summary="Pause a type of job")
async def pause_queue(job_type: QueueType, kit: Kit, caller: Admin) -> Response:
    """Start no more jobs of this type for the tenant. What runs finishes; new ones wait. Safe to repeat."""
    await kit.job_pauses.pause(tenant_id=caller.tenant_id, job_type=job_type)
    return JsonResponse(QueueOut(type=job_type, paused=True))


@router.post("/admin/queues/{job_type}/resume", response_model=QueueOut, summary="Resume a type of job")
async def resume_queue(job_type: QueueType, kit: Kit, caller: Admin) -> Response:
    """Go on with this type; jobs that were put aside follow within a few seconds. Safe to repeat."""
    await kit.job_pauses.resume(tenant_id=caller.tenant_id, job_type=job_type)
    return JsonResponse(QueueOut(type=job_type, paused=False))


def _fields(job: Job) -> dict[str, object]:
    return {name: getattr(job, name) for name in JobOut.model_fields}


def _shown(job: Job) -> AdminJobOut:
    return AdminJobOut(
        **_fields(job),
        user_id=job.user_id,
        key=job.key,
        priority=job.priority,
        payload=dict(job.payload),
        errors=[JobErrorOut(at=error.at, kind=error.kind, message=error.message) for error in job.errors],
    )
