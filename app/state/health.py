"""What the background probe of a store last saw, answered from memory.

Readiness must not load a sick store: probes of the balancer read this instead of asking the store, and see
how old it is.
"""

from dataclasses import dataclass, field
from typing import Literal

from app.core.clock import Clock

STALE_AFTER_S = 5.0
"""A probe that has not come back for this long counts as failed: it hangs, or the loop does."""


@dataclass(frozen=True, slots=True)
class StoreHealth:
    """One store, as of `age_ms` ago."""

    status: Literal["pass", "warn", "fail"]
    age_ms: int
    latency_ms: float | None
    detail: str
    pool: dict[str, int] = field(default_factory=dict)


class StoreProbe:
    """Keeps the last result of probing one store."""

    def __init__(self, clock: Clock) -> None:
        """Nothing has been seen yet, so the store counts as failing."""
        self._clock = clock
        self._at_s = clock.monotonic_s()
        self._latency_s: float | None = None
        self._detail = "not reached yet"

    def passed(self, *, latency_s: float) -> None:
        """Record an answer."""
        self._at_s = self._clock.monotonic_s()
        self._latency_s = latency_s
        self._detail = "answers"

    def failed(self, reason: BaseException) -> None:
        """Record that none came. Only the kind of error is kept: its text may name hosts and users."""
        self._at_s = self._clock.monotonic_s()
        self._latency_s = None
        self._detail = f"unreachable ({type(reason).__name__})"

    def health(self, *, pool: dict[str, int]) -> StoreHealth:
        """Return what is known, and how old it is."""
        age_s = self._clock.monotonic_s() - self._at_s
        answered = self._latency_s is not None
        fresh = age_s <= STALE_AFTER_S
        return StoreHealth(
            status="pass" if answered and fresh else "fail",
            age_ms=round(age_s * 1000),
            latency_ms=None if self._latency_s is None else round(self._latency_s * 1000, 2),
            detail=self._detail if fresh else f"no probe has finished for {round(age_s)} s",
            pool=pool,
        )
