"""Pages of applications by number, with how many there are in all."""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from app.features.credit.documents import shown
from app.features.credit.store import NOBODY, ApplicationStore, Filters, Sort, scope_of
from app.features.credit.transitions import Status
from app.state.kit import StateKit
from app.state.principals import Principal

PAGE_MAX: Final = 1000
"""How far one can turn: with a hundred a page, a hundred thousand. Narrow the list to see beyond."""


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
    store, scope = ApplicationStore(kit), scope_of(caller)
    filters = Filters(wanted.status, _reviewer(caller, wanted.reviewer))
    skip = (wanted.page - 1) * wanted.limit
    rows, total = await asyncio.gather(
        store.page(scope, filters, sort=wanted.sort, skip=skip, limit=wanted.limit),
        store.count(scope, filters),
    )
    return {
        "items": [shown(row) for row in rows],
        "total": total,
        "page": wanted.page,
        "limit": wanted.limit,
        "pages": -(-total // wanted.limit),
    }


def _reviewer(caller: Principal, named: str | None) -> str | None:
    if named == "me":
        return caller.user_id
    return NOBODY if named == "none" else named
