"""What a request with an Idempotency-Key is made of; `app.state.idempotency` says what for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Generic, Self, TypeAlias, TypeVar

from app.core.errors import CargoFlowError, ConflictError

LIFE_S = 24 * 3600
"""How long a key is remembered."""

T = TypeVar("T")


class KeyReusedError(CargoFlowError):
    """This Idempotency-Key was used for another request."""

    status, code, title = 422, "idempotency_key_reused", "Idempotency key reused"

    def __init__(self) -> None:
        """Say what to do; not what the other request was."""
        super().__init__("This Idempotency-Key belongs to a different request. Use a new key for a new one.")


class InFlightError(ConflictError):
    """The first request with this Idempotency-Key is still being worked on."""

    code, title = "idempotency_in_flight", "Request in flight"

    def __init__(self) -> None:
        """Ask for a retry in a second."""
        super().__init__(
            "The first request with this Idempotency-Key has not finished yet. Repeat it to get its answer.",
            headers={"Retry-After": "1"},
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request was answered: a JSON body, and the headers that belong to it (`Location`, `ETag`)."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


AnswerOf: TypeAlias = Callable[[T], Answer]
"""How what was made is answered. Pure: it is asked before the commit, and again for the response."""


class AlreadyDoneError(ConflictError):
    """Not this request had the effect but its twin, whose answer this carries. The edge sends that."""

    def __init__(self, answer: Answer) -> None:
        """`answer` is the first one's."""
        super().__init__("This was done before, by a request with the same Idempotency-Key.")
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Claim:
    """A key within its scope, hashed, and what the request with it asks for.

    `fingerprints` holds the one to store, followed by those that mean the same (secrets rotate).
    """

    key: str
    fingerprints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Keyed(Generic[T]):
    """A claim, and how the effect it is laid to will be answered."""

    claim: Claim
    answer_of: AnswerOf[T]


@dataclass(frozen=True, slots=True)
class Stored:
    """What is known of a key that was used."""

    fingerprint: str
    answer: Answer
    expires_at: datetime

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any]) -> Self:
        """Read a row of `idempotency_keys`, or what a document carries."""
        answer = Answer(entry["status"], bytes(entry["body"]), entry["headers"])
        return cls(entry["fingerprint"], answer, entry["expires_at"])

    @property
    def made_at(self) -> datetime:
        """When the effect was had, on the clock of the replica that had it."""
        return self.expires_at - timedelta(seconds=LIFE_S)
