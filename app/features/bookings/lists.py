"""Pages of bookings, as they are answered, out of the cache."""

from datetime import datetime
from typing import Final

from app.core.moments import to_milliseconds
from app.features.bookings.cached import OWN_LISTS, STAFF_LISTS
from app.features.bookings.documents import shown
from app.features.bookings.store import BookingStore, Filters, is_staff
from app.http.paging import page_of
from app.http.responses import encode
from app.state.cache import CacheRead
from app.state.cache_kinds import CacheEntry
from app.state.kit import StateKit
from app.state.mongo import Document
from app.state.principals import Principal

CURSOR_KIND: Final = "bookings"


async def page(
    kit: StateKit,
    caller: Principal,
    filters: Filters,
    *,
    before: tuple[datetime, str] | None,
    limit: int,
) -> CacheRead:
    """Return a page of the bookings that the caller sees: those older than the one with this date and id."""

    async def load() -> bytes:
        found = await BookingStore(kit).page(caller, filters, before=before, limit=limit + 1)
        rows = page_of(found, limit=limit, kind=CURSOR_KIND, position_of=_position)
        return encode({**rows, "items": [shown(row) for row in rows["items"]]})

    return await kit.cache.read(_entry(caller, filters, before, limit), load)


def _entry(
    caller: Principal, filters: Filters, before: tuple[datetime, str] | None, limit: int
) -> CacheEntry:
    place = "" if before is None else f"{to_milliseconds(before[0])} {before[1]}"
    if is_staff(caller):
        return STAFF_LISTS.entry(
            tenant_id=caller.tenant_id,
            status=filters.status,
            number=filters.number,
            reference_key=filters.reference_key,
            before=place,
            limit=limit,
        )
    return OWN_LISTS.entry(
        tenant_id=caller.tenant_id,
        user_id=caller.user_id,
        status=filters.status,
        number=filters.number,
        reference_key=filters.reference_key,
        before=place,
        limit=limit,
    )


def _position(document: Document) -> tuple[int, str]:
    return to_milliseconds(document["created_at"]), document["_id"]
