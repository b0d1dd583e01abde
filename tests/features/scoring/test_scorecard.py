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
        (
            {
                "mismatched_fields": ("company_name",),
                "credit_delivered": 30,
                "bookings_completed": 30,
                "bookings_total": 30,
            },
            "documents_contradict",
        ),
        (
            {"documents_read": 0, "credit_delivered": 30, "bookings_completed": 30, "bookings_total": 30},
            "no_documents",
        ),
        (
            {
                "requested_minor": 300_000_000,
                "credit_delivered": 30,
                "bookings_completed": 30,
                "bookings_total": 30,
            },
            "out_of_proportion",
        ),
    ],
)
def test_no_number_makes_up_for_what_a_person_should_look_at(changes: dict[str, object], code: str) -> None:
    score = score_of(replace(GOOD, **changes))  # type: ignore[arg-type]
    assert (score.points >= 70, score.suggestion) == (True, "review")
    assert [reason.code for reason in score.reasons] == [code]


def test_little_that_speaks_for_an_application_suggests_to_reject_it() -> None:
    score = score_of(
        replace(GOOD, annual_revenue_minor=None, years_trading=None, documents_read=0, terms_days=180)
    )
    assert (score.points, score.suggestion) == (5, "reject")
    assert [reason.code for reason in score.reasons] == ["few_points", "no_documents"]


def test_history_counts_and_cancelling_much_halves_it() -> None:
    booked = replace(GOOD, bookings_total=10, bookings_completed=6, bookings_cancelled=3)
    assert points(booked)["booking_history"] == 10
    assert points(replace(booked, bookings_cancelled=4))["booking_history"] == 5
    assert points(GOOD)["booking_history"] == points(GOOD)["payment_history"] == 0
    assert points(replace(GOOD, credit_delivered=5, loans_paid_out=1))["payment_history"] == 7


def test_a_contradicted_revenue_costs_less_than_a_contradicted_name() -> None:
    agree = {
        fields: points(replace(GOOD, mismatched_fields=fields))["documents_agree"]
        for fields in ((), ("annual_revenue",), ("annual_revenue", "company_name"))
    }
    assert list(agree.values()) == [15, 5, 0]
