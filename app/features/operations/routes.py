"""`/health`, `/ready`, `/metrics`, `/cache-stats`, `/problems/{code}`. No credential, no rate limit, no
prefix.

Probes must not cost a store anything: `/health` does no I/O at all and `/ready` answers from what the
background probes saw last.
"""

from fastapi import Request, Response

from app.core.errors import NotFoundError
from app.core.metrics import CONTENT_TYPE
from app.features.operations.cache import summarise
from app.features.operations.network import is_private
from app.features.operations.problems import describe
from app.features.operations.readiness import assess
from app.features.operations.schemas import CacheStats, Health, ProblemDescription, Readiness
from app.http.admission import Kit
from app.http.context import client_ip
from app.http.responses import JsonResponse
from app.http.routing import PUBLIC, ApiRouter

router = ApiRouter(tags=["Operations"])

_NO_STORE = {"Cache-Control": "no-store"}


@router.get("/health", response_model=Health, openapi_extra=PUBLIC, summary="Is this process alive?")
async def health(request: Request) -> Response:
    """Answer at once, without asking anybody: also while draining, and with every store gone."""
    return JsonResponse(
        {
            "status": "pass",
            "replica": request.app.state.settings.replica_name,
            "version": request.app.version,
        },
        headers=_NO_STORE,
    )


@router.get(
    "/ready",
    response_model=Readiness,
    responses={503: {"model": Readiness, "description": "Send no requests here."}},
    openapi_extra=PUBLIC,
    summary="Should this process get requests?",
)
async def ready(request: Request, kit: Kit) -> Response:
    """Answer from memory what the background probes saw last: 200 for `pass` and `warn`, 503 for `fail`."""
    state = request.app.state
    report = assess(
        mongo=kit.mongo,
        redis=kit.redis,
        draining=state.draining.is_set(),
        optional=state.optional_services,
    )
    headers = _NO_STORE
    if report.status == "fail":
        headers = {**headers, "Retry-After": str(report.retry_after_s)}
    return JsonResponse(
        report.document(kit.settings.replica_name), status_code=report.http_status, headers=headers
    )


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request) -> Response:
    """Render the process's metrics; outside of private networks the path does not exist."""
    if not is_private(client_ip(request)):
        raise NotFoundError
    return Response(request.app.state.metrics.exposition(), media_type=CONTENT_TYPE, headers=_NO_STORE)


@router.get(
    "/cache-stats", response_model=CacheStats, openapi_extra=PUBLIC, summary="Do the hot copies serve?"
)
async def cache_stats(kit: Kit) -> Response:
    """Count over the whole cluster, whichever replica answers. 503 while Redis is gone."""
    return JsonResponse(summarise(await kit.hot.stats()), headers=_NO_STORE)


@router.get(
    "/problems/{code}",
    response_model=ProblemDescription,
    openapi_extra=PUBLIC,
    summary="What does this error code mean?",
)
async def problem(code: str) -> Response:
    """Describe the code that a problem's `type` points to."""
    return JsonResponse(describe(code), headers={"Cache-Control": "public, max-age=300"})
