"""The scorecard: seven factors, a hundred points, and what they suggest. Pure: same inputs, same score.

A factor says how many points it gives, of how many, why, and from which inputs. The suggestion is one of
approve, review, reject, with the reasons for it; it decides nothing. What no number makes up for (a document
that contradicts the applicant, none that confirms anything, a request out of proportion) keeps a score from
suggesting approval: that is for a person to look at.

Change a number here, and SCORECARD with it: a score says by which card it was reckoned.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

Suggestion = Literal["approve", "review", "reject"]

SCORECARD: Final = "2026-1"
POINTS_MAX: Final = 100
APPROVE_FROM: Final = 70
REJECT_BELOW: Final = 40
OUT_OF_PROPORTION_PERCENT: Final = 50
"""Of the annual revenue. A request above it is for a person to look at."""
_IDENTITY: Final = frozenset({"company_name", "registration_number"})
"""Fields that say who it is: a document that contradicts one is not the applicant's."""
_CANCELLED_SHARE_PERCENT: Final = 30
"""Above it, bookings count half."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """All that a score is reckoned from. Amounts are in the smallest unit of one currency."""

    requested_minor: int
    annual_revenue_minor: int | None
    """None if not stated, or in another currency."""
    terms_days: int
    years_trading: int | None
    documents_read: int
    """Those in which something was found; a blank page says nothing."""
    documents_failed: int
    confirmed_fields: tuple[str, ...]
    """Of the application, which some document says as well; sorted."""
    mismatched_fields: tuple[str, ...]
    """Of the application, in which some document contradicts it; sorted."""
    bookings_total: int
    bookings_completed: int
    bookings_cancelled: int
    credit_delivered: int
    """Shipments on credit that were delivered, and so are owed or were."""
    credit_voided: int
    loans_paid_out: int


@dataclass(frozen=True, slots=True)
class Factor:
    """One line of the scorecard."""

    code: str
    points: int
    max: int
    why: str
    inputs: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why the suggestion is what it is."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Score:
    """What the card says of an application."""

    points: int
    suggestion: Suggestion
    reasons: tuple[Reason, ...]
    factors: tuple[Factor, ...]

    def document(self) -> dict[str, Any]:
        """Return it as it is stored and shown."""
        return {
            "scorecard": SCORECARD,
            "points": self.points,
            "points_max": POINTS_MAX,
            "suggestion": self.suggestion,
            "reasons": [asdict(reason) for reason in self.reasons],
            "factors": [asdict(factor) for factor in self.factors],
        }


def score_of(inputs: Inputs) -> Score:
    """Return the score."""
    factors = tuple(factor(inputs) for factor in _FACTORS)
    points = sum(factor.points for factor in factors)
    concerns = tuple(_concerns(inputs))
    unstated = [name for name, value in _stated(inputs).items() if value is None]
    if points < REJECT_BELOW and unstated:
        reason = Reason(
            "little_known", f"{points} of {POINTS_MAX} points; not stated: {', '.join(unstated)}."
        )
        return Score(points, "review", (reason, *concerns), factors)
    if points < REJECT_BELOW:
        reason = Reason(
            "few_points", f"{points} of {POINTS_MAX} points; below {REJECT_BELOW} the card advises against."
        )
        return Score(points, "reject", (reason, *concerns), factors)
    if points < APPROVE_FROM:
        reason = Reason(
            "middling_points", f"{points} of {POINTS_MAX} points; {APPROVE_FROM} would speak for it."
        )
        return Score(points, "review", (reason, *concerns), factors)
    if concerns:
        return Score(points, "review", concerns, factors)
    reason = Reason("enough_points", f"{points} of {POINTS_MAX} points, and nothing that speaks against it.")
    return Score(points, "approve", (reason,), factors)


def _stated(inputs: Inputs) -> dict[str, int | None]:
    """Return what an applicant may leave out, and is asked for before anything is held against them."""
    return {"annual_revenue": inputs.annual_revenue_minor, "years_trading": inputs.years_trading}


def _concerns(inputs: Inputs) -> Sequence[Reason]:
    found = []
    if inputs.mismatched_fields:
        named = ", ".join(inputs.mismatched_fields)
        found.append(Reason("documents_contradict", f"Documents say otherwise than the applicant: {named}."))
    if not inputs.confirmed_fields:
        found.append(Reason("nothing_confirmed", "No document confirms what is stated."))
    revenue = inputs.annual_revenue_minor
    if revenue is not None and inputs.requested_minor * 100 > revenue * OUT_OF_PROPORTION_PERCENT:
        found.append(
            Reason(
                "out_of_proportion",
                f"More than {OUT_OF_PROPORTION_PERCENT} % of the annual revenue is asked for.",
            )
        )
    return found


def _amount_to_revenue(inputs: Inputs) -> Factor:
    revenue, seen = inputs.annual_revenue_minor, {
        "requested_minor": inputs.requested_minor, "annual_revenue_minor": inputs.annual_revenue_minor,
    }  # fmt: skip
    if revenue is None:
        return Factor("amount_to_revenue", 5, 25, "The annual revenue is not known.", seen)
    steps = ((2, 25), (5, 20), (10, 12), (20, 5))
    for percent, points in steps:
        if inputs.requested_minor * 100 <= revenue * percent:
            why = f"At most {percent} % of the annual revenue is asked for."
            return Factor("amount_to_revenue", points, 25, why, seen)
    return Factor("amount_to_revenue", 0, 25, "More than 20 % of the annual revenue is asked for.", seen)


def _terms(inputs: Inputs) -> Factor:
    seen = {"terms_days": inputs.terms_days}
    for days, points in ((30, 10), (45, 8), (60, 6), (90, 3)):
        if inputs.terms_days <= days:
            return Factor("terms", points, 10, f"To be paid within {days} days.", seen)
    return Factor("terms", 0, 10, "To be paid after more than 90 days.", seen)


def _years_trading(inputs: Inputs) -> Factor:
    years, seen = inputs.years_trading, {"years_trading": inputs.years_trading}
    if years is None:
        return Factor("years_trading", 0, 15, "How long the company has traded is not known.", seen)
    for least, points in ((10, 15), (5, 11), (3, 8), (1, 4)):
        if years >= least:
            return Factor("years_trading", points, 15, f"Trading for {least} years or longer.", seen)
    return Factor("years_trading", 0, 15, "Trading for less than a year.", seen)


def _documents_read(inputs: Inputs) -> Factor:
    read = inputs.documents_read
    seen = {"documents_read": read, "documents_failed": inputs.documents_failed}
    points = (0, 7, 10)[min(read, 2)]
    why = f"{read} read by machine, {inputs.documents_failed} could not be."
    return Factor("documents_read", points, 10, why, seen)


def _documents_agree(inputs: Inputs) -> Factor:
    confirmed = [field for field in inputs.confirmed_fields if field not in inputs.mismatched_fields]
    seen = {
        "confirmed_fields": list(inputs.confirmed_fields),
        "mismatched_fields": list(inputs.mismatched_fields),
    }
    if _IDENTITY.intersection(inputs.mismatched_fields):
        named = ", ".join(inputs.mismatched_fields)
        return Factor("documents_agree", 0, 15, f"Contradicted in {named}.", seen)
    why = f"Confirmed: {', '.join(confirmed) or 'nothing'}."
    if inputs.mismatched_fields:
        why += f" Contradicted: {', '.join(inputs.mismatched_fields)}."
    return Factor("documents_agree", 5 * len(confirmed), 15, why, seen)


def _bookings(inputs: Inputs) -> Factor:
    seen = {
        "total": inputs.bookings_total,
        "completed": inputs.bookings_completed,
        "cancelled": inputs.bookings_cancelled,
    }
    if not inputs.bookings_total:
        return Factor("booking_history", 0, 15, "Has not booked here yet.", seen)
    completed = inputs.bookings_completed
    points = next((points for least, points in ((20, 15), (5, 10), (1, 6)) if completed >= least), 2)
    why = (
        f"{completed} of {inputs.bookings_total} shipments completed, {inputs.bookings_cancelled} cancelled."
    )
    if inputs.bookings_cancelled * 100 > inputs.bookings_total * _CANCELLED_SHARE_PERCENT:
        return Factor("booking_history", points // 2, 15, f"{why} That is many cancelled: half counts.", seen)
    return Factor("booking_history", points, 15, why, seen)


def _payments(inputs: Inputs) -> Factor:
    seen = {
        "credit_delivered": inputs.credit_delivered,
        "credit_voided": inputs.credit_voided,
        "loans_paid_out": inputs.loans_paid_out,
    }
    if not any(seen.values()):
        return Factor("payment_history", 0, 10, "No history of credit here yet.", seen)
    delivered = inputs.credit_delivered
    points = next((points for least, points in ((20, 10), (5, 7), (1, 4)) if delivered >= least), 2)
    why = (
        f"{delivered} shipments on credit delivered, {inputs.credit_voided} called off, "
        f"{inputs.loans_paid_out} loans paid out."
    )
    return Factor("payment_history", points, 10, why, seen)


_FACTORS: Final[Sequence[Callable[[Inputs], Factor]]] = (
    _amount_to_revenue,
    _terms,
    _years_trading,
    _documents_read,
    _documents_agree,
    _bookings,
    _payments,
)
