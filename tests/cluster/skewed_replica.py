"""A replica on a machine whose clock is wrong: `python -m tests.cluster.skewed_replica SECONDS`.

Otherwise `python -m app.main`: the same application, served the same way, from the same environment.
"""

import sys
from datetime import UTC, datetime, timedelta

from app.core.clock import SystemClock
from app.core.settings import load_settings
from app.main import create_app
from app.serve import serve


class SkewedClock(SystemClock):
    """The machine's clock, off by a fixed amount."""

    def __init__(self, off_by: timedelta) -> None:
        """Positive: the clock is ahead of the world."""
        self._off_by = off_by

    def now(self) -> datetime:
        """Return the wrong time."""
        return datetime.now(UTC) + self._off_by


if __name__ == "__main__":
    settings = load_settings()
    clock = SkewedClock(timedelta(seconds=int(sys.argv[1])))
    serve(create_app(settings, clock=clock), settings)
