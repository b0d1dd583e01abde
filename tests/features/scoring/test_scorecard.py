"""The scorecard by itself: each factor's points, and what they suggest."""

from dataclasses import replace

import pytest

from app.features.scoring.scorecard import POINTS_MAX, Inputs, score_of

GOOD = Inputs(
    requested_minor=5_000_000,
    annual_revenue_minor=480_000_000,
    terms_days=30,
    years_trading=12,
    documents_read=2,
    documents_failed=0,
    confirmed_fields=("annual_revenue", "company_name", "registration_number"),
    mismatched_fields=(),
    bookings_total=0,
    bookings_completed=0,
    bookings_cancelled=0,
    credit_delivered=0,
    credit_voided=0,
    loans_paid_out=0,
)
"""A sound company that is new here."""


def points(inputs: Inputs) -> dict[str, int]:
    return {factor.code: factor.points for factor in score_of(inputs).factors}


def test_the_factors_add_up_to_a_hundred_and_each_says_why_and_from_what() -> None:
    score = score_of(GOOD)
    assert sum(factor.max for factor in score.factors) == POINTS_MAX
    assert score.points == sum(factor.points for factor in score.factors)
    for factor in score.factors:
        assert 0 <= factor.points <= factor.max
        assert factor.why
        assert factor.inputs
    assert score_of(GOOD) == score


def test_a_sound_company_that_is_new_here_is_worth_approving() -> None:
    score = score_of(GOOD)
    assert (score.points, score.suggestion) == (75, "approve")
    assert [reason.code for reason in score.reasons] == ["enough_points"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"mismatched_fields": ("company_name",)}, "documents_contradict"),
        ({"confirmed_fields": ()}, "nothing_confirmed"),
        ({"requested_minor": 300_000_000}, "out_of_proportion"),
    ],
)
def test_no_number_makes_up_for_what_a_person_should_look_at(changes: dict[str, object], code: str) -> None:
    known = replace(GOOD, credit_delivered=30, bookings_completed=30, bookings_total=30)
    score = score_of(replace(known, **changes))  # type: ignore[arg-type]
    assert (score.points >= 70, score.suggestion) == (True, "review")
    assert [reason.code for reason in score.reasons] == [code]


POOR = replace(
    GOOD,
    requested_minor=200_000_000,
    years_trading=0,
    documents_read=0,
    confirmed_fields=(),
    terms_days=180,
)


def test_little_that_speaks_for_an_application_suggests_to_reject_it() -> None:
    score = score_of(POOR)
    assert (score.points, score.suggestion) == (0, "reject")
    assert [reason.code for reason in score.reasons] == ["few_points", "nothing_confirmed"]


@pytest.mark.parametrize("name", ["annual_revenue", "years_trading"])
def test_what_was_not_stated_is_asked_for_before_it_is_held_against_anybody(name: str) -> None:
    field = {"annual_revenue": "annual_revenue_minor"}.get(name, name)
    score = score_of(replace(POOR, **{field: None}))  # type: ignore[arg-type]
    assert (score.suggestion, score.reasons[0].code) == ("review", "little_known")
    assert score.reasons[0].detail.endswith(f"not stated: {name}.")


def test_history_counts_and_cancelling_much_halves_it() -> None:
    booked = replace(GOOD, bookings_total=10, bookings_completed=6, bookings_cancelled=3)
    assert points(booked)["booking_history"] == 10
    assert points(replace(booked, bookings_cancelled=4))["booking_history"] == 5
    assert points(GOOD)["booking_history"] == points(GOOD)["payment_history"] == 0
    assert points(replace(GOOD, credit_delivered=5, loans_paid_out=1))["payment_history"] == 7


def test_each_field_that_a_document_confirms_counts_and_a_contradicted_name_takes_all_of_it() -> None:
    def agree(confirmed: tuple[str, ...], mismatched: tuple[str, ...]) -> int:
        inputs = replace(GOOD, confirmed_fields=confirmed, mismatched_fields=mismatched)
        return points(inputs)["documents_agree"]

    assert agree((), ()) == 0
    assert agree(("company_name",), ()) == 5
    assert agree(("company_name", "registration_number"), ("annual_revenue",)) == 10
    assert agree(("annual_revenue", "company_name"), ("annual_revenue",)) == 5, "one says so, one otherwise"
    assert agree(("annual_revenue", "registration_number"), ("company_name",)) == 0
