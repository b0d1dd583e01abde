"""The rules of registering, logging in, staying logged in, and passwords.

Whatever fails after the change that a request is about was committed (tidying up rows that are dead
already) does not fail the request.
"""

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from app.core.errors import (
    ConflictError,
    ForbiddenError,
    NotFoundError,
    StoreUnavailableError,
    UnauthenticatedError,
    ValidationFailedError,
)
from app.core.passwords import refuse_weak_password
from app.core.settings import Tier
from app.features.auth.jobs import reset_mail
from app.state.accounts import Account, EmailTakenError
from app.state.api_keys import ApiKey
from app.state.cache_kinds import everything_of
from app.state.kit import StateKit
from app.state.logins import Device, Login
from app.state.principals import Principal


@dataclass(frozen=True, slots=True)
class Entry:
    """Somebody is in: their tokens, and for how long."""

    account: Account
    login: Login
    access_token: str = field(repr=False)
    expires_in_s: int
    refresh_token: str = field(repr=False)


async def register(
    kit: StateKit, *, email: str, password: str, name: str, company: str, device: Device
) -> Entry:
    """Make a tenant and its admin, and log them in.

    The unique address decides. Killed in between, this leaves a tenant nobody refers to, or a user who can
    log in. Raises EmailTakenError, ValidationFailedError for a weak password.
    """
    refuse_weak_password(password, email=email, field="password")
    password_hash = await kit.passwords.hash(password)
    tenant = await kit.tenants.create(name=company)
    try:
        account = await kit.accounts.create(
            tenant_id=tenant.id, email=email, name=name, role="admin", password_hash=password_hash
        )
    except EmailTakenError:
        with suppress(StoreUnavailableError):
            await kit.tenants.remove_unused(tenant.id)
        raise
    return await _begin(kit, account, device)


async def log_in(kit: StateKit, *, email: str, password: str, device: Device) -> Entry:
    """Begin a login session for who knows the password.

    Raises UnauthenticatedError, the same and after the same time for an unknown address, a wrong password and
    a deactivated user.
    """
    account = await kit.accounts.find_by_email(email)
    correct = await kit.passwords.matches(password, None if account is None else account.password_hash)
    if account is None or not correct or not account.active:
        kit.metrics.login("refused")
        raise UnauthenticatedError("The e-mail address or the password is wrong.")
    if kit.passwords.outdated(account.password_hash):
        await kit.accounts.rehash_password(account, await kit.passwords.hash(password))
    kit.metrics.login("ok")
    return await _begin(kit, account, device)


async def refresh(kit: StateKit, refresh_token: str | None) -> Entry:
    """Continue a login session, rotating its refresh token.

    Raises UnauthenticatedError for no token, one that is not good, or a user who may not be logged in any
    more; RefreshReusedError after ending the login session of a token that was used before.
    """
    if refresh_token is None:
        raise UnauthenticatedError("There is no refresh token in the body or in the cookie. Log in.")
    login, successor = await kit.logins.rotate(refresh_token)
    account = await kit.accounts.find(tenant_id=login.tenant_id, user_id=login.user_id)
    if account is None or not account.active or account.epoch != login.epoch:
        raise UnauthenticatedError("The login has ended. Log in again.")
    return _entry(kit, account, login, successor.text)


async def log_out(kit: StateKit, caller: Principal) -> None:
    """End the caller's login session."""
    with suppress(NotFoundError):
        await kit.logins.end(
            tenant_id=caller.tenant_id, user_id=caller.user_id, login_id=caller.credential.id
        )
    await _forget_cached(kit, caller)


async def log_out_everywhere(kit: StateKit, caller: Principal) -> None:
    """End every login session of the caller."""
    account = await kit.accounts.end_logins(tenant_id=caller.tenant_id, user_id=caller.user_id)
    with suppress(StoreUnavailableError):
        await kit.logins.sweep(account)
    await _forget_cached(kit, caller)


async def change_password(
    kit: StateKit, caller: Principal, *, current_password: str, new_password: str
) -> None:
    """Replace the caller's password and end all of their login sessions but this one.

    Raises ValidationFailedError for a wrong or a weak password, ConflictError if it was changed meanwhile.
    """
    refuse_weak_password(new_password, email=caller.email, field="new_password")
    account = await kit.accounts.get(tenant_id=caller.tenant_id, user_id=caller.user_id)
    if not await kit.passwords.matches(current_password, account.password_hash):
        raise ValidationFailedError(
            "The current password is wrong.",
            errors=[{"field": "current_password", "message": "is not the current password"}],
        )
    changed = await kit.accounts.change_password(account, await kit.passwords.hash(new_password))
    if changed is None:
        raise ConflictError("The password was changed by another request at the same time.")
    with suppress(StoreUnavailableError):
        await kit.logins.carry_over(changed, caller.credential.id)
        await kit.logins.sweep(changed)


async def ask_for_reset(kit: StateKit, *, email: str) -> None:
    """Have a link mailed to the address if it is a user's; whether it is, is looked up by the worker."""
    await kit.jobs.enqueue(reset_mail(email))


async def reset_password(kit: StateKit, *, token: str, password: str) -> None:
    """Set a password by the token from a mail and end all login sessions of that user.

    Raises ResetRefusedError, ValidationFailedError for a weak password.
    """
    account = await kit.accounts.find_by_reset(token)
    refuse_weak_password(password, email=account.email, field="password")
    changed = await kit.accounts.reset_password(account, token, await kit.passwords.hash(password))
    with suppress(StoreUnavailableError):
        await kit.logins.sweep(changed)


async def list_devices(
    kit: StateKit, caller: Principal, *, after: tuple[datetime, str] | None, limit: int
) -> list[Login]:
    """Return living login sessions of the caller, newest first."""
    account = await kit.accounts.get(tenant_id=caller.tenant_id, user_id=caller.user_id)
    return await kit.logins.page(
        tenant_id=account.tenant_id, user_id=account.id, epoch=account.epoch, after=after, limit=limit
    )


async def create_api_key(kit: StateKit, caller: Principal, *, name: str, tier: Tier) -> tuple[ApiKey, str]:
    """Make a key that acts as the caller.

    Raises ForbiddenError if the tier is not the caller's to give, ApiKeyLimitError.
    """
    if tier != "standard" and caller.role != "admin":
        raise ForbiddenError(f"Keys of the tier {tier} are for admins to make.")
    return await kit.api_keys.create(tenant_id=caller.tenant_id, user_id=caller.user_id, name=name, tier=tier)


async def _forget_cached(kit: StateKit, caller: Principal) -> None:
    """Who leaves leaves nothing of theirs in the cache."""
    await kit.cache.invalidate(everything_of(tenant_id=caller.tenant_id, user_id=caller.user_id))


async def _begin(kit: StateKit, account: Account, device: Device) -> Entry:
    login, token = await kit.logins.start(account, device)
    return _entry(kit, account, login, token.text)


def _entry(kit: StateKit, account: Account, login: Login, refresh_token: str) -> Entry:
    access_token = kit.tokens.mint(
        login_id=login.id, user_id=account.id, tenant_id=account.tenant_id, issued_at=kit.clock.now()
    )
    return Entry(account, login, access_token, kit.tokens.ttl_s, refresh_token)
