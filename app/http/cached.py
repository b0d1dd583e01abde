"""Answers out of the cache: the body as it is, and `X-Cache: HIT|MISS|STALE|BYPASS`.

@router.get("/tenant")
async def read_tenant(kit: Kit, caller: Staff) -> Response:
    return cached(await service.read_tenant(kit, caller.tenant_id))
"""

from collections.abc import Mapping

from app.http.responses import JsonResponse
from app.state.cache import CacheRead


def cached(read: CacheRead, *, headers: Mapping[str, str] | None = None) -> JsonResponse:
    """Return the response for what was read, saying how it was come by."""
    return JsonResponse(read.body, headers={**(headers or {}), "X-Cache": read.outcome.upper()})
