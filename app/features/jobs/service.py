"""The rules of looking at jobs and of keeping queues going."""

from typing import Final

from app.core.errors import NotFoundError
from app.state.job_desk import QueueStats
from app.state.job_documents import Job
from app.state.kit import StateKit
from app.state.principals import Principal

STAFF: Final = frozenset({"admin", "dispatcher", "underwriter"})


async def get(kit: StateKit, caller: Principal, job_id: str) -> Job:
    """Return a job of the caller's own, or, for staff, of anybody in the tenant. Raises NotFoundError."""
    job = await kit.jobs.get(caller.tenant_id, job_id)
    if job.user_id != caller.user_id and caller.role not in STAFF:
        raise NotFoundError
    return job


async def stats(kit: StateKit, tenant_id: str) -> tuple[QueueStats, set[str]]:
    """Return how many jobs there are of each type in each state, and which types are paused."""
    return await kit.job_desk.stats(tenant_id=tenant_id), await kit.job_pauses.paused_types(tenant_id)
