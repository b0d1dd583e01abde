"""Pages of applications by number, with how many there are in all.

The last page tells the total by itself. Otherwise up to EXACT_MAX are counted, by an index, every time; what
is more than that is counted at most once in TOTAL_TTL_S for all who look at the same list: a thousand who
turn pages would each have an index of a hundred thousand walked through to tell them of one more.
"""

from dataclasses import dataclass
from typing import Any, Final

import orjson

from app.features.credit.documents import shown
from app.features.credit.store import NOBODY, ApplicationStore, Filters, Sort, scope_of
from app.features.credit.transitions import Status
from app.http.responses import encode
from app.state.cache_kinds import CacheKind
from app.state.documents import Scope
from app.state.kit import StateKit
from app.state.principals import Principal

PAGE_MAX: Final = 1000
"""How far one can turn: with a hundred a page, a hundred thousand. Narrow the list to see beyond."""
EXACT_MAX: Final = 1000
TOTAL_TTL_S: Final = 10

_TOTALS: Final = CacheKind(
    "application_total", scope="tenant", key=("tenant_id", "owner", "status", "reviewer"), ttl_s=TOTAL_TTL_S
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which page of which list. `reviewer`: `me`, `none` or a user's id."""

    page: int
    limit: int
    sort: Sort
    status: Status | None = None
    reviewer: str | None = None


async def page(kit: StateKit, caller: Principal, wanted: Wanted) -> dict[str, Any]:
    """Return a page of what the caller sees, as it is answered. Raises StoreUnavailableError."""
    scope = scope_of(caller)
    filters = Filters(wanted.status, _reviewer(caller, wanted.reviewer))
    skip = (wanted.page - 1) * wanted.limit
    rows = await ApplicationStore(kit).page(scope, filters, sort=wanted.sort, skip=skip, limit=wanted.limit)
    is_last = 0 < len(rows) < wanted.limit or not (rows or skip)
    seen = skip + len(rows)
    total = seen if is_last else await _total(kit, scope, filters)
    if rows:
        total = max(total, seen)
    return {
        "items": [shown(row) for row in rows],
        "total": total,
        "page": wanted.page,
        "limit": wanted.limit,
        "pages": -(-total // wanted.limit),
    }


async def _total(kit: StateKit, scope: Scope, filters: Filters) -> int:
    store = ApplicationStore(kit)
    counted = await store.count(scope, filters, at_most=EXACT_MAX)
    if counted < EXACT_MAX:
        return counted

    async def load() -> bytes:
        return encode(await store.count(scope, filters))

    entry = _TOTALS.entry(
        tenant_id=scope["tenant_id"],
        owner=scope.get("user_id"),
        status=filters.status,
        reviewer=filters.reviewer,
    )
    total: int = orjson.loads((await kit.cache.read(entry, load)).body)
    return total


def _reviewer(caller: Principal, named: str | None) -> str | None:
    if named == "me":
        return caller.user_id
    return NOBODY if named == "none" else named
