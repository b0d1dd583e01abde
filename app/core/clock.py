"""Time as an argument.

Logic never asks the machine for the time; it is handed a `Clock`. In a replica that clock is
`state.store_clock.StoreClock`, which follows MongoDB's clock, so that replicas whose own clocks disagree
still agree on what has expired.
"""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where the time comes from."""

    def now(self) -> datetime:
        """Return the current time, aware, in UTC."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds that only grow, for measuring durations inside one process."""
        ...


class SystemClock:
    """This machine's own clock. For tools and for measuring; replicas use the stores' clock instead."""

    def now(self) -> datetime:
        """Return the machine's current time in UTC."""
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        """Return the machine's monotonic seconds."""
        return time.monotonic()
