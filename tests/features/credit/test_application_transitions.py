"""Where an application may go, and by whose doing."""

from datetime import UTC, datetime
from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import InvalidTransitionError
from app.features.credit.documents import EVENTS_MAX, HISTORY_MAX, new_event
from app.features.credit.errors import HistoryFullError
from app.features.credit.service import GRANT, decided
from app.features.credit.transitions import (
    LENGTH_MAX,
    STATUSES,
    TRANSITIONS,
    Party,
    Status,
    allowed,
    check,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ACTOR = {"user_id": "usr_u", "name": "Uta", "role": "underwriter"}


def test_the_table_names_every_status_and_no_other() -> None:
    assert set(TRANSITIONS) == set(STATUSES)
    assert {status for targets in TRANSITIONS.values() for status in targets} < set(STATUSES)


@pytest.mark.parametrize(("current", "wanted"), list(product(STATUSES, STATUSES)))
@pytest.mark.parametrize("party", ["reviewer", "payment"])
def test_whatever_is_not_in_the_table_is_refused_with_what_is(
    current: Status, wanted: Status, party: Party
) -> None:
    if TRANSITIONS[current].get(wanted) == party:
        check(current, wanted, party)
        return
    with pytest.raises(InvalidTransitionError) as refused:
        check(current, wanted, party)
    assert refused.value.extra == {"current_status": current, "allowed": allowed(current, party)}


def test_money_moves_only_by_its_payment() -> None:
    assert allowed("approved", "payment") == ["disbursing"]
    assert "disbursed" in allowed("disbursing", "payment")
    for status in ("approved", "disbursing", "disbursed"):
        assert allowed(status, "reviewer") == []
    assert not {"disbursing", "disbursed"} & {to for status in STATUSES for to in allowed(status, "reviewer")}


def test_no_life_is_longer_than_the_history_leaves_room_for() -> None:
    def longest(status: Status, *before: Status) -> int:
        new = TRANSITIONS[status].keys() - {status, *before}
        return max((1 + longest(following, status, *before) for following in new), default=0)

    assert longest("pending") == LENGTH_MAX == EVENTS_MAX - HISTORY_MAX


@given(st.lists(st.tuples(st.sampled_from(STATUSES), st.none() | st.just("why")), max_size=12))
def test_whatever_reviewers_try_an_application_walks_through_the_table_and_is_granted_once(
    tries: list[tuple[Status, str | None]],
) -> None:
    application = {
        "_id": "app_a",
        "tenant_id": "ten_a",
        "user_id": "usr_a",
        "status": "pending",
        "version": 1,
    }
    walked, granted = ["pending"], 0
    for wanted, note in tries:
        current = application["status"]
        legal = note is not None if wanted == current else TRANSITIONS[current].get(wanted) == "reviewer"
        try:
            change = decided(application, new_event(wanted, ACTOR, NOW, note=note))
        except InvalidTransitionError:
            assert not legal
            continue
        assert legal
        granted += [job.type for job in change.jobs].count(GRANT)
        application = {**application, "status": wanted, "version": application["version"] + 1}
        walked += [wanted] if wanted != current else []
    assert all(following in TRANSITIONS[status] for status, following in pairwise(walked))
    assert not {"disbursing", "disbursed"} & set(walked)
    assert granted == walked.count("approved") <= 1


def test_a_full_history_takes_no_note_and_leaves_room_for_the_rest_of_its_life() -> None:
    application = {"_id": "a", "tenant_id": "t", "user_id": "u", "status": "pending", "version": HISTORY_MAX}
    with pytest.raises(HistoryFullError):
        decided(application, new_event("pending", ACTOR, NOW, note="one more"))
    assert decided(application, new_event("in_review", ACTOR, NOW)).event["status"] == "in_review"
    almost = {**application, "version": HISTORY_MAX - 1}
    assert decided(almost, new_event("pending", ACTOR, NOW, note="one more")).event["note"] == "one more"
