"""`GET /admin/cluster`: what runs, for a tenant's admin.

An admin is a tenant's, and the cluster is everybody's. So this shows processes, stores and locks by kind, but
no address or pid, no lock's name, which may hold the id of another tenant's thing, and of the jobs the
tenant's own.
"""

from fastapi import Response

from app.features.admin.cluster_schemas import ClusterOut, LockOut, ProcessOut, QueuesOut, StoreOut
from app.http.admission import Admin, Kit
from app.http.responses import JsonResponse
from app.http.routing import ApiRouter
from app.state.health import StoreHealth
from app.state.kit import StateKit
from app.state.processes import Kind, Process

router = ApiRouter(prefix="/admin", tags=["Admin"])


@router.get("/cluster", response_model=ClusterOut, summary="What runs?")
async def cluster(kit: Kit, caller: Admin) -> Response:
    """Show replicas and workers by their heartbeats, the stores' health, the locks that are held, and the
    tenant's jobs.
    """
    return JsonResponse(await _cluster(kit, caller.tenant_id), headers={"Cache-Control": "no-store"})


async def _cluster(kit: StateKit, tenant_id: str) -> ClusterOut:
    alive = await kit.processes.alive()
    jobs = await kit.job_desk.stats(tenant_id=tenant_id)
    return ClusterOut(
        answered_by=kit.settings.replica_name,
        replicas=_shown(alive, "replica"),
        workers=_shown(alive, "worker"),
        stores={"mongo": _store(kit.mongo.health), "redis": _store(kit.redis.health)},
        locks=[
            LockOut(
                kind=lock.name.partition(":")[0],
                token=lock.token,
                holder=lock.holder,
                since=lock.since,
                expires_at=lock.expires_at,
            )
            for lock in await kit.locks.held()
        ],
        queues=QueuesOut(**jobs.total),
    )


def _shown(alive: list[Process], kind: Kind) -> list[ProcessOut]:
    return [
        ProcessOut(
            name=process.name,
            version=process.version,
            started_at=process.started_at,
            beat_age_ms=process.beat_age_ms,
            draining=process.draining,
            in_flight=process.in_flight,
            pools=process.pools,
        )
        for process in alive
        if process.kind == kind
    ]


def _store(health: StoreHealth) -> StoreOut:
    return StoreOut(status=health.status, age_ms=health.age_ms, latency_ms=health.latency_ms)
