"""How routes declare limits, and how a used-up one becomes a 429.

slowapi declares and raises; it does not count (decision 0002): its own check runs synchronously inside the
event loop and answers 500 when its storage is gone. A route says

    @router.post("/bookings")
    @limiter.shared_limit(setting("limit_booking"), scope="booking", key_func=per_user)
    async def book(request: Request, caller: Caller, …)

and what it declared is counted elsewhere in one awaited script: limits `per_user` by `admission` together
with the tier's, in the round trip that authenticates; the others by `counted`, once the handler knows their
subject.

`scope` is the policy's name in keys, headers and metrics; routes that share a scope share the count.
"""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Any, Self

from fastapi import Request
from slowapi import Limiter
from slowapi.errors import RateLimitExceeded
from slowapi.wrappers import Limit as DeclaredLimit

from app.core.errors import RateLimitedError
from app.core.settings import Settings
from app.state.rate_limits import Charge, Limit, Rate, RateLimits, Standing

CLOSED_WITHOUT_REDIS = frozenset({"auth", "auth-email"})
"""Scopes that refuse when Redis is gone: guessing passwords must not get cheaper by stalling it."""

_settings: ContextVar[Settings] = ContextVar("settings_while_limits_are_read")


def per_user(request: Request) -> str:
    """Subject: the caller. Counted by `admission`."""
    return str(request.state.subjects["user"])


def per_email(request: Request) -> str:
    """Subject: the e-mail address in the body, as given to `counted`."""
    return str(request.state.subjects["email"]).lower()


def per_email_and_ip(request: Request) -> str:
    """Subject: that address together with the client's."""
    return f"{per_email(request)}|{request.state.subjects['ip']}"


def setting(name: str) -> Callable[[], str]:
    """Return a limit read from the application's settings, such as `setting("limit_auth")`."""
    return lambda: str(getattr(_settings.get(), name))


limiter = Limiter(key_func=per_user, auto_check=False, enabled=False)


@dataclass(frozen=True, slots=True)
class Declared:
    """One limit as a route declared it."""

    rate: Rate
    subject_of: Callable[[Request], str]
    source: DeclaredLimit


def declared_limits(settings: Settings, endpoint: Callable[..., Any]) -> tuple[Declared, ...]:
    """Return what the endpoint declared, with the amounts these settings give."""
    name = f"{endpoint.__module__}.{endpoint.__name__}"
    # most routes declare none, and looking settings up by their hash takes 10 µs
    return _amounts(settings, name) if name in limiter._dynamic_route_limits else ()  # noqa: SLF001  # slowapi's own middleware reads it too


@lru_cache(maxsize=1024)
def _amounts(settings: Settings, endpoint_name: str) -> tuple[Declared, ...]:
    token = _settings.set(settings)
    try:
        limits = [limit for group in limiter._dynamic_route_limits[endpoint_name] for limit in group]  # noqa: SLF001  # as above
    finally:
        _settings.reset(token)
    return tuple(
        Declared(
            Rate(
                limit.scope,
                limit.limit.amount,
                limit.limit.get_expiry(),
                closed=limit.scope in CLOSED_WITHOUT_REDIS,
            ),
            limit.key_func,
            limit,
        )
        for limit in limits
    )


def announce(request: Request, standing: Standing) -> None:
    """Put the standing into the response's `RateLimit` headers (draft-ietf-httpapi-ratelimit-headers)."""
    request.state.standing = standing
    request.scope["cargoflow.headers"] = rate_limit_headers(standing)


def rate_limit_headers(standing: Standing) -> list[tuple[bytes, bytes]]:
    """Return `RateLimit` and `RateLimit-Policy` for a standing."""
    return [
        (b"ratelimit", b'"%b";r=%d;t=%d' % (standing.policy.encode(), standing.remaining, standing.reset_s)),
        (
            b"ratelimit-policy",
            b'"%b";q=%d;w=%d' % (standing.policy.encode(), standing.amount, standing.window_s),
        ),
    ]


def refused(standing: Standing) -> RateLimitedError:
    """Return the 429 for a standing that is not allowed."""
    amount = f"{standing.amount} requests in {standing.window_s} s are allowed"
    return RateLimitedError(
        f"{amount}: try again in {standing.reset_s} s.", headers={"Retry-After": str(standing.reset_s)}
    )


def refused_by_route(request: Request, error: RateLimitExceeded) -> RateLimitedError:
    """Turn slowapi's exception, raised for a limit that a route declared, into ours."""
    standing: Standing = request.state.standing
    return refused(standing) if error.limit is not None else RateLimitedError(str(error.detail))


class counted:  # noqa: N801  # reads as a verb: `async with counted(request, email=…) as charge`
    """Count the limits which the current route declared, for these subjects, before the body of the block
    runs.

    Raises slowapi's RateLimitExceeded (a 429), or StoreUnavailableError for a closed limit while Redis is
    gone. `refund()` gives the request back, for what did not deserve counting after all: a login that
    succeeded.
    """

    def __init__(self, request: Request, limits: RateLimits, settings: Settings, **subjects: str) -> None:
        """`subjects` are what the route's key functions ask for: `email`, `ip`."""
        self._request = request
        self._limits = limits
        self._settings = settings
        self._subjects = subjects
        self._charge: Charge | None = None

    async def __aenter__(self) -> Self:
        self._request.state.subjects = self._subjects
        declared = declared_limits(self._settings, self._request.scope["endpoint"])
        charge = await self._limits.take([Limit(row.rate, row.subject_of(self._request)) for row in declared])
        announce(self._request, charge.standing)
        if not charge.standing.allowed:
            raise RateLimitExceeded(
                next(row.source for row in declared if row.rate.policy == charge.standing.policy)
            )
        self._charge = charge
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the count as it is."""

    async def refund(self) -> None:
        """Give the counted request back."""
        if self._charge is not None:
            await self._limits.refund(self._charge)
            self._charge = None
