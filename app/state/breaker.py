"""A circuit breaker and the guard every store call runs in.

Guarantees: while a store does not answer, callers wait for it only until `failures_to_open` of them have run
into their timeout; after that every call fails at once with StoreUnavailableError until the background probe
has reached the store again. A call never lasts longer than the store's timeout. Commands slower than one
second are logged and counted.

Does not guarantee: that a call which timed out had no effect. A write may still land after its timeout;
callers make writes idempotent.

State: three numbers in this process, of which nothing but waiting time depends. Pattern: M. Nygard, "Release
It!".
"""

import asyncio
import logging
from types import TracebackType
from typing import Self

from app.core.clock import Clock
from app.core.errors import StoreUnavailableError
from app.core.metrics import Metrics

_log = logging.getLogger(__name__)

SLOW_COMMAND_S = 1.0


class Breaker:
    """Open after consecutive failures, closed again by the first success (the probe's, since others no longer
    try).
    """

    def __init__(self, store: str, metrics: Metrics, *, failures_to_open: int = 3) -> None:
        """`store` is its name in errors, logs and metrics."""
        self.store = store
        self.is_open = False
        self._metrics = metrics
        self._failures_to_open = failures_to_open
        self._failures = 0
        metrics.breaker(store, open=False)

    def check(self) -> None:
        """Raise StoreUnavailableError while open."""
        if self.is_open:
            raise StoreUnavailableError(self.store)

    def succeeded(self) -> None:
        """Count an answer; closes."""
        self._failures = 0
        if self.is_open:
            self.is_open = False
            self._metrics.breaker(self.store, open=False)
            _log.warning("store_reachable_again", extra={"store": self.store})

    def failed(self, reason: BaseException) -> None:
        """Count a call that got no answer; opens at the threshold."""
        self._failures += 1
        if not self.is_open and self._failures >= self._failures_to_open:
            self.is_open = True
            self._metrics.breaker(self.store, open=True)
            _log.error(
                "store_unreachable",
                extra={"store": self.store, "reason": f"{type(reason).__name__}: {reason}"},
            )


class StoreGuard:
    """`async with guard:` around one or a few store calls: breaker, timeout, error mapping, timing.

    Raises StoreUnavailableError when the breaker is open, the time is over, or the client reports one of
    `unavailable` errors. Anything else the body raises passes through and counts as an answer, but for the
    StoreUnavailableError of a guard inside: guards nest, and the outer one bounds the time of all. Without a
    timeout the body bounds its own time: a timer a call is 4 µs, and a batch of calls needs one only.
    """

    __slots__ = ("_breaker", "_clock", "_command", "_metrics", "_started_s", "_timeout", "_unavailable")

    def __init__(
        self,
        *,
        breaker: Breaker,
        command: str,
        timeout_s: float | None,
        unavailable: tuple[type[BaseException], ...],
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        """`command` names what runs, for logs and metrics: `sessions.find`."""
        self._breaker = breaker
        self._command = command
        self._timeout = None if timeout_s is None else asyncio.timeout(timeout_s)
        self._unavailable = unavailable
        self._clock = clock
        self._metrics = metrics
        self._started_s = 0.0

    async def __aenter__(self) -> Self:
        self._breaker.check()
        self._started_s = self._clock.monotonic_s()
        if self._timeout is not None:
            await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timeout is not None:
            try:
                await self._timeout.__aexit__(kind, error, trace)
            except TimeoutError as timed_out:
                self._finish("timeout")
                self._breaker.failed(timed_out)
                raise StoreUnavailableError(self._breaker.store) from timed_out
        if error is not None and isinstance(error, self._unavailable):
            self._finish("timeout" if isinstance(error, TimeoutError) else "unavailable")
            self._breaker.failed(error)
            raise StoreUnavailableError(self._breaker.store) from error
        if isinstance(error, asyncio.CancelledError):
            return
        if isinstance(error, StoreUnavailableError):  # a guard inside of this one has counted it
            self._finish("unavailable")
            return
        self._finish("ok" if error is None else "error")
        self._breaker.succeeded()

    def _finish(self, outcome: str) -> None:
        seconds = self._clock.monotonic_s() - self._started_s
        self._metrics.store_command(self._breaker.store, self._command, seconds, outcome)
        if seconds > SLOW_COMMAND_S:
            _log.warning(
                "slow_command",
                extra={
                    "store": self._breaker.store,
                    "command": self._command,
                    "ms": round(seconds * 1000),
                    "outcome": outcome,
                },
            )
