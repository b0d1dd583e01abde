"""What of bookings is cached, and what ends it.

- Lists, for whoever sees the same ones: a user's own, and those of all staff of a tenant. A booking that is
  made ends its owner's and the staff's; one that moves on ends all lists of the tenant, since it is not known
  beforehand whose it is. A user's own end when they log out, too.
- Quotes, by what the price depends on, for all users of a tenant. A change of the tenant ends them: they are
  in its currency. The tariff comes with the code, so QUOTE_TTL_S is also how long after a release an old
  price may be quoted.

A write that was acknowledged is seen by the next read through any replica (`state.cache`).
"""

from typing import Final

from app.features.bookings.pricing import Shipment, lead_time_share
from app.state.cache_kinds import CacheEntry, CacheKind, CacheTarget

QUOTE_TTL_S: Final = 300
LIST_TTL_S: Final = 30
_PAGE: Final = ("status", "number", "reference_key", "before", "limit")

OWN_LISTS: Final = CacheKind(
    "own_bookings", scope="user", key=("tenant_id", "user_id", *_PAGE), ttl_s=LIST_TTL_S
)
STAFF_LISTS: Final = CacheKind("tenant_bookings", scope="tenant", key=("tenant_id", *_PAGE), ttl_s=LIST_TTL_S)
_QUOTES: Final = CacheKind(
    "quote",
    scope="tenant",
    key=("tenant_id", "origin", "destination", "equipment", "weight_kg", "hazardous", "lead_time_share"),
    ttl_s=QUOTE_TTL_S,
)


def lists_with_a_new_booking(*, tenant_id: str, user_id: str) -> tuple[CacheTarget, ...]:
    """Return what a booking of this user is about to be added to."""
    return OWN_LISTS.all(tenant_id=tenant_id, user_id=user_id), STAFF_LISTS.all(tenant_id=tenant_id)


def lists_of_a_tenant(tenant_id: str) -> tuple[CacheTarget, ...]:
    """Return every list that a booking of this tenant may be in."""
    return OWN_LISTS.all(tenant_id=tenant_id), STAFF_LISTS.all(tenant_id=tenant_id)


def quote_entry(tenant_id: str, shipment: Shipment) -> CacheEntry:
    """Return the entry of a shipment's price: the same for all lead times that cost the same."""
    share, _ = lead_time_share(shipment.lead_time)
    return _QUOTES.entry(
        tenant_id=tenant_id,
        origin=repr(shipment.origin),
        destination=repr(shipment.destination),
        equipment=shipment.equipment,
        weight_kg=str(shipment.weight_kg),
        hazardous=shipment.hazardous,
        lead_time_share=str(share),
    )
