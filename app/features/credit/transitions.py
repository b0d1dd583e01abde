"""The life of an application: one table, which says where it may go and by whose doing.

    pending ──► in_review ──┬──► approved ──► disbursing ──► disbursed
                            └──► rejected    ▲               │
                                             └───────────────┘ the gateway refused

People who review take it as far as `approved` or `rejected`; the last two steps are taken by its payment and
by nothing else.
"""

from collections.abc import Mapping
from typing import Final, Literal, get_args

from app.core.errors import InvalidTransitionError

Status = Literal["pending", "in_review", "approved", "rejected", "disbursing", "disbursed"]
STATUSES: Final[tuple[Status, ...]] = get_args(Status)
Party = Literal["reviewer", "payment"]
"""By whose doing an application moves: underwriters and admins of the tenant, or its being paid out."""

TRANSITIONS: Final[Mapping[Status, Mapping[Status, Party]]] = {
    "pending": {"in_review": "reviewer"},
    "in_review": {"approved": "reviewer", "rejected": "reviewer"},
    "approved": {"disbursing": "payment"},
    "rejected": {},
    "disbursing": {"disbursed": "payment", "approved": "payment"},
    "disbursed": {},
}
LENGTH_MAX: Final = 4
"""How many transitions an application can go through, but for payments that are refused and tried anew."""


def allowed(current: Status, party: Party) -> list[Status]:
    """Return where this party may send an application that is `current`."""
    return [status for status, by in TRANSITIONS[current].items() if by == party]


def check(current: Status, wanted: Status, party: Party) -> None:
    """Raise InvalidTransitionError unless this party may send an application from `current` to `wanted`."""
    if TRANSITIONS[current].get(wanted) != party:
        raise InvalidTransitionError(
            "An application", current=current, wanted=wanted, allowed=allowed(current, party)
        )
