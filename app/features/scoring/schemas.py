"""What a score is, as it is answered."""

from typing import Any

from app.core.moments import Timestamp
from app.features.scoring.scorecard import Suggestion
from app.http.schemas import ResponseModel


class FactorOut(ResponseModel):
    """One line of the scorecard."""

    code: str
    points: int
    max: int
    why: str
    inputs: dict[str, Any]
    """What it was reckoned from."""


class ReasonOut(ResponseModel):
    """Why the suggestion is what it is."""

    code: str
    detail: str


class ScoreOut(ResponseModel):
    """A suggestion. Who decides is a person."""

    application_id: str
    scorecard: str
    """The card's version."""
    points: int
    points_max: int
    suggestion: Suggestion
    reasons: list[ReasonOut]
    factors: list[FactorOut]
    revision: int
    """How many times it was reckoned with something new."""
    computed_at: Timestamp
