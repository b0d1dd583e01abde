"""How long to go on competing by compare-and-set: full jitter between tries, and an end.

Source of the algorithm: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

import asyncio
import random

from app.core.clock import Clock

PATIENCE_S = 1.5
_FIRST_PAUSE_S = 0.002
_LONGEST_PAUSE_S = 0.03


class Patience:
    """One contender's. Begins when it is made."""

    def __init__(self, clock: Clock, *, patience_s: float = PATIENCE_S) -> None:
        """`clock` measures; it need not agree with anybody's."""
        self._clock = clock
        self._ends_s = clock.monotonic_s() + patience_s
        self._pause_s = _FIRST_PAUSE_S

    async def wait(self) -> bool:
        """Pause for a random time, longer with every try, and return True; at once False when it is over."""
        if self._clock.monotonic_s() >= self._ends_s:
            return False
        await asyncio.sleep(random.uniform(0, self._pause_s))  # noqa: S311  # spreads contenders, hides nothing
        self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)
        return True
