"""Where a booking may go, and who may send it there."""

from itertools import pairwise, product

import pytest

from app.core.errors import ForbiddenError, InvalidTransitionError
from app.features.bookings.transitions import LENGTH_MAX, STATUSES, TRANSITIONS, Status, allowed, check

FORWARD = ["booked", "assigned", "picked_up", "in_transit", "delivered", "closed"]


def test_the_table_names_every_status_and_no_other() -> None:
    assert set(TRANSITIONS) == set(STATUSES)
    assert {status for targets in TRANSITIONS.values() for status in targets} < set(STATUSES)


def test_staff_take_a_booking_through_its_whole_life() -> None:
    for current, following in pairwise(FORWARD):
        check(current, following, "staff")


@pytest.mark.parametrize(("current", "wanted"), list(product(STATUSES, STATUSES)))
def test_whatever_is_not_in_the_table_is_refused_with_what_is(current: Status, wanted: Status) -> None:
    if wanted in TRANSITIONS[current]:
        check(current, wanted, "staff")
        return
    with pytest.raises(InvalidTransitionError) as refused:
        check(current, wanted, "staff")
    assert refused.value.extra == {"current_status": current, "allowed": allowed(current, "staff")}


def test_an_owner_may_cancel_until_pick_up_and_nothing_else() -> None:
    assert {status: allowed(status, "owner") for status in STATUSES if allowed(status, "owner")} == {
        "booked": ["cancelled"],
        "assigned": ["cancelled"],
    }
    with pytest.raises(ForbiddenError):
        check("booked", "assigned", "owner")


def test_no_life_is_longer_than_the_timeline_is_bounded_by() -> None:
    def longest(status: Status) -> int:
        return max((1 + longest(following) for following in TRANSITIONS[status]), default=0)

    assert longest("booked") == LENGTH_MAX
