"""How many connections to MongoDB there are, and how many of them are in use, as the driver reports them."""

import threading

from pymongo import monitoring


class PoolGauge(monitoring.ConnectionPoolListener):
    """Counts what the driver's pools open, close and lend. Told from the driver's threads, read from any."""

    def __init__(self) -> None:
        """Nothing is open yet."""
        self._lock = threading.Lock()
        self.open = 0
        self.in_use = 0

    def _count(self, *, opened: int = 0, lent: int = 0) -> None:
        with self._lock:
            self.open += opened
            self.in_use += lent

    def connection_created(self, event: monitoring.ConnectionCreatedEvent) -> None:  # noqa: ARG002, D102  # the driver's interface, here and below
        self._count(opened=1)

    def connection_closed(self, event: monitoring.ConnectionClosedEvent) -> None:  # noqa: ARG002, D102
        self._count(opened=-1)

    def connection_checked_out(self, event: monitoring.ConnectionCheckedOutEvent) -> None:  # noqa: ARG002, D102
        self._count(lent=1)

    def connection_checked_in(self, event: monitoring.ConnectionCheckedInEvent) -> None:  # noqa: ARG002, D102
        self._count(lent=-1)

    def pool_created(self, event: monitoring.PoolCreatedEvent) -> None:  # noqa: D102
        pass

    def pool_ready(self, event: monitoring.PoolReadyEvent) -> None:  # noqa: D102
        pass

    def pool_cleared(self, event: monitoring.PoolClearedEvent) -> None:  # noqa: D102
        pass

    def pool_closed(self, event: monitoring.PoolClosedEvent) -> None:  # noqa: D102
        pass

    def connection_ready(self, event: monitoring.ConnectionReadyEvent) -> None:  # noqa: D102
        pass

    def connection_check_out_started(self, event: monitoring.ConnectionCheckOutStartedEvent) -> None:  # noqa: D102
        pass

    def connection_check_out_failed(self, event: monitoring.ConnectionCheckOutFailedEvent) -> None:  # noqa: D102
        pass
