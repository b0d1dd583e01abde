"""The life of a booking: one table, which says where it may go and who may send it there.

    booked ──► assigned ──► picked_up ──► in_transit ──► delivered ──► closed
       └───────────┴──► cancelled

An owner may call a shipment off until it is picked up; everything else is for staff.
"""

from collections.abc import Mapping
from typing import Final, Literal, get_args

from app.core.errors import ForbiddenError, InvalidTransitionError

Status = Literal["booked", "assigned", "picked_up", "in_transit", "delivered", "closed", "cancelled"]
STATUSES: Final[tuple[Status, ...]] = get_args(Status)
Party = Literal["owner", "staff"]
"""As whom somebody acts on a booking. Staff: dispatchers and admins of the tenant, their own bookings too."""

_STAFF: Final[frozenset[Party]] = frozenset({"staff"})
_BOTH: Final[frozenset[Party]] = frozenset({"owner", "staff"})

TRANSITIONS: Final[Mapping[Status, Mapping[Status, frozenset[Party]]]] = {
    "booked": {"assigned": _STAFF, "cancelled": _BOTH},
    "assigned": {"picked_up": _STAFF, "cancelled": _BOTH},
    "picked_up": {"in_transit": _STAFF},
    "in_transit": {"delivered": _STAFF},
    "delivered": {"closed": _STAFF},
    "closed": {},
    "cancelled": {},
}
LENGTH_MAX: Final = 5
"""How many transitions a booking can go through: a timeline is never longer than this and its beginning."""


def allowed(current: Status, party: Party) -> list[Status]:
    """Return where this party may send a booking that is `current`."""
    return [status for status, parties in TRANSITIONS[current].items() if party in parties]


def check(current: Status, wanted: Status, party: Party) -> None:
    """Raise InvalidTransitionError if the booking can't go there, ForbiddenError if others may send it."""
    parties = TRANSITIONS[current].get(wanted)
    if parties is None:
        raise InvalidTransitionError(
            "A booking", current=current, wanted=wanted, allowed=allowed(current, party)
        )
    if party not in parties:
        raise ForbiddenError(f"Only {' or '.join(sorted(parties))} may make a booking {wanted}.")
