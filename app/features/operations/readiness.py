"""Whether this replica should get requests, from what the background probes saw last. No I/O.

| | status | HTTP |
|---|---|---|
| draining | fail | 503 |
| MongoDB gone, or its probe too old | fail | 503 |
| Redis gone, or its probe too old | warn | 200: reads go to MongoDB, limits are local |
| another service gone (the chat's model) | warn | 200: only what needs it fails |
| all answer | pass | 200 |
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Protocol

from app.core.errors import DrainingError
from app.state.health import StoreHealth

_RETRY_AFTER_DRAINING_S: Final = 1
_RETRY_AFTER_STORE_S: Final = 2


class HasHealth(Protocol):
    """A store with a background probe."""

    @property
    def health(self) -> StoreHealth:
        """What the probe saw last."""
        ...


@dataclass(frozen=True, slots=True)
class ReadinessReport:
    """The verdict and what it rests on. `retry_after_s` matters only when it fails."""

    status: Literal["pass", "warn", "fail"]
    checks: dict[str, StoreHealth]
    code: str = ""
    detail: str = ""
    retry_after_s: int = 0

    @property
    def http_status(self) -> int:
        """503 tells a balancer to send nothing."""
        return 503 if self.status == "fail" else 200

    def document(self, replica: str) -> dict[str, Any]:
        """Return the body of `/ready`."""
        document: dict[str, Any] = {"status": self.status, "replica": replica, "checks": self.checks}
        if self.code:
            document |= {"code": self.code, "detail": self.detail}
        return document


def assess(
    *, mongo: HasHealth, redis: HasHealth, draining: bool, optional: Mapping[str, HasHealth]
) -> ReadinessReport:
    """Judge by the table above; `optional` are services by name that a replica can do without."""
    others = {name: _at_worst_warn(service.health) for name, service in optional.items()}
    checks = {"mongo": mongo.health, "redis": redis.health, **others}
    if draining:
        return ReadinessReport(
            "fail", checks, DrainingError.code, "This replica is shutting down.", _RETRY_AFTER_DRAINING_S
        )
    if checks["mongo"].status == "fail":
        return ReadinessReport(
            "fail", checks, "store_unavailable", "This replica can't reach MongoDB.", _RETRY_AFTER_STORE_S
        )
    all_pass = all(check.status == "pass" for check in checks.values())
    return ReadinessReport("pass" if all_pass else "warn", checks)


def _at_worst_warn(health: StoreHealth) -> StoreHealth:
    return health if health.status == "pass" else replace(health, status="warn")
