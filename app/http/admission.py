"""Who may come in: FastAPI dependencies that turn a request into a caller.

`Caller` is a living user, counted against their tier and against what the route declared, in one round trip
to Redis. `requires(role, …)` narrows it by role. `admit` itself can also bring a hot document
of the caller's own along. `anonymous` is for routes without a credential: counted by address.

Anything that presents a credential which is nobody's is counted as anonymous before it is refused, so that
guessing tokens is limited like any other guessing.
"""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from slowapi.errors import RateLimitExceeded

from app.core.errors import ForbiddenError, UnauthenticatedError
from app.core.ids import is_id
from app.core.tokens import AccessTokens
from app.http.context import client_ip, identify
from app.http.limits import Declared, announce, declared_limits, per_user, refused
from app.state.hot import HotRead
from app.state.kit import StateKit
from app.state.principals import Credential, Principal, Role, Wanted
from app.state.rate_limits import Charge, Limit, Standing, parse_rate

_BEARER = "bearer "
_MAX_KEY_CHARACTERS = 256


def kit(request: Request) -> StateKit:
    """Return the state kit of this application."""
    state_kit: StateKit = request.app.state.kit
    return state_kit


Kit = Annotated[StateKit, Depends(kit)]


@dataclass(frozen=True, slots=True)
class Admitted:
    """A caller who may come in, the hot document asked for along with them (a miss if none was), and what was
    counted for it.
    """

    principal: Principal
    wanted: HotRead
    charge: Charge
    refusal: Exception | None = None
    """The 429 of a limit that is used up, when `weigh` was asked; nothing was counted then."""


def presented_credential(request: Request, tokens: AccessTokens) -> Credential:
    """Read the credential from the headers; an access token wins over an API key.

    Raises UnauthenticatedError or TokenExpiredError. Says nothing about whether the credential is alive.
    """
    headers = request.headers
    authorization = headers.get("authorization")
    if authorization is not None:
        if authorization[: len(_BEARER)].lower() != _BEARER:
            raise UnauthenticatedError
        token = tokens.verify(authorization[len(_BEARER) :].strip())
        return Credential("login", token.login_id)
    key = headers.get("x-api-key")
    if key is None or len(key) > _MAX_KEY_CHARACTERS:
        raise UnauthenticatedError
    key_id, dot, secret = key.partition(".")
    if not dot or not is_id(key_id, "key"):
        raise UnauthenticatedError
    return Credential("api_key", key_id, proof=hashlib.sha256(secret.encode()).hexdigest())


async def admit(request: Request, wanted: Wanted | None = None) -> Admitted:
    """Admit the caller of this request, or raise.

    Raises UnauthenticatedError, TokenExpiredError, a 429 when a limit is used up, StoreUnavailableError when
    no store can say who it is.
    """
    admitted = await weigh(request, wanted)
    if admitted.refusal is not None:
        raise admitted.refusal
    return admitted


async def weigh(request: Request, wanted: Wanted | None = None, *, twin: str = "") -> Admitted:
    """Do what `admit` does, but leave the 429 of a known caller to be raised: a replay costs no limit.

    Requests that name the same `twin` count once in the limits that the route declared.
    """
    state_kit = kit(request)
    unknown = _anonymous_limit(request, state_kit)
    try:
        credential = presented_credential(request, state_kit.tokens)
    except UnauthenticatedError:
        await _count_anonymous(request, state_kit)
        raise
    declared = declared_limits(state_kit.settings, request.scope["endpoint"])
    extra = [row for row in declared if row.subject_of is per_user]
    admission = await state_kit.principals.admit(
        credential, anonymous=unknown, extra=[row.rate for row in extra], twin=twin, wanted=wanted
    )
    standing = admission.charge.standing
    announce(request, standing)
    principal = admission.principal
    if principal is not None:
        identify(request, user_id=principal.user_id, tenant_id=principal.tenant_id)
    if principal is not None:
        refusal = None if standing.allowed else _refusal(standing, extra)
        return Admitted(principal, admission.wanted, admission.charge, refusal)
    if not standing.allowed:
        raise refused(standing)
    raise UnauthenticatedError


async def caller(request: Request) -> Principal:
    """Return the living user behind the request; see `admit` for what it raises."""
    return (await admit(request)).principal


Caller = Annotated[Principal, Depends(caller)]


def requires(*roles: Role) -> Callable[[Request], Awaitable[Principal]]:
    """Return a dependency that admits callers of these roles and answers 403 to others."""

    async def caller_with_role(request: Request) -> Principal:
        principal = await caller(request)
        forbidden = wrong_role(principal, roles)
        if forbidden is not None:
            raise forbidden
        return principal

    return caller_with_role


def wrong_role(principal: Principal, roles: Sequence[Role]) -> ForbiddenError | None:
    """Return the 403 for a caller who has none of these roles; naming none lets everybody in."""
    if not roles or principal.role in roles:
        return None
    return ForbiddenError(f"This needs the role {' or '.join(roles)}; yours is {principal.role}.")


Admin = Annotated[Principal, Depends(requires("admin"))]


async def anonymous(request: Request) -> None:
    """Count a request without a credential by its address. Raises a 429 when the limit is used up."""
    await _count_anonymous(request, kit(request))


Anonymous = Depends(anonymous)


def _refusal(standing: Standing, declared: Sequence[Declared]) -> Exception:
    for row in declared:
        if row.rate.policy == standing.policy:
            return RateLimitExceeded(row.source)
    return refused(standing)


def _anonymous_limit(request: Request, state_kit: StateKit) -> Limit:
    return Limit(parse_rate("anonymous", state_kit.settings.limit_anonymous), client_ip(request))


async def _count_anonymous(request: Request, state_kit: StateKit) -> None:
    charge = await state_kit.limits.take([_anonymous_limit(request, state_kit)])
    announce(request, charge.standing)
    if not charge.standing.allowed:
        raise refused(charge.standing)
