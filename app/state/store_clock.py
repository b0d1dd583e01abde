"""MongoDB's clock, followed from afar: the time on which replicas agree.

A replica's own wall clock decides nothing that another replica relies on; a token minted by one must not look
expired to another whose clock runs an hour ahead. So the probe of MongoDB, once a second, reads the server's
time, and this clock goes on from there with the machine's monotonic seconds. As in NTP the server is taken to
have answered half-way between question and answer; the error is at most half the round trip. Until the first
answer, and for as long as MongoDB is gone, it runs on: first by the machine's clock, then by the last answer.

Guarantees agreement between replicas to within a round trip. Does not guarantee to be right where MongoDB's
clock is wrong. What must hold even for a process that was paused in between (leases) compares in MongoDB
itself, with `$$NOW`.
"""

from datetime import datetime, timedelta

from app.core.clock import Clock

_SLEW_LIMIT_S = 0.05
"""Answers that are off by less than this are noise of the round trip and change nothing: the clock stays
steady.
"""


class StoreClock:
    """A Clock set by `adjust`; not before the first answer better than the machine's clock."""

    def __init__(self, machine: Clock) -> None:
        """`machine` supplies monotonic seconds, and the time of day until MongoDB has been asked."""
        self._machine = machine
        self._base = machine.now()
        self._base_s = machine.monotonic_s()
        self.synchronised = False

    def now(self) -> datetime:
        """Return MongoDB's current time, aware, in UTC."""
        return self._base + timedelta(seconds=self._machine.monotonic_s() - self._base_s)

    def monotonic_s(self) -> float:
        """Return the machine's monotonic seconds."""
        return self._machine.monotonic_s()

    def adjust(self, server_now: datetime, *, asked_s: float, answered_s: float) -> None:
        """Set the clock by an answer that said `server_now`, asked and answered at these seconds."""
        middle_s = (asked_s + answered_s) / 2
        off_s = abs((self._base + timedelta(seconds=middle_s - self._base_s) - server_now).total_seconds())
        if self.synchronised and off_s < max(_SLEW_LIMIT_S, (answered_s - asked_s) / 2):
            return
        self._base, self._base_s, self.synchronised = server_now, middle_s, True
