"""The rules of managing users: what follows from a role change or a deactivation.

The change itself is one update of the user's document and acts at once (`state.accounts`). What follows
tidies up: should it be cut short, nothing that was ended comes back to life.
"""

from contextlib import suppress

from app.core.errors import StoreUnavailableError
from app.core.passwords import refuse_weak_password
from app.state.accounts import Account, AccountChanges
from app.state.keyed import Keyed
from app.state.kit import StateKit
from app.state.principals import Role
from app.state.versions import VersionCheck


async def create_user(
    kit: StateKit,
    *,
    tenant_id: str,
    email: str,
    name: str,
    role: Role,
    password: str,
    keyed: Keyed[Account] | None,
) -> Account:
    """Make an active user of the tenant. Raises ValidationFailedError, and as `Accounts.create` does."""
    refuse_weak_password(password, email=email, field="password")
    return await kit.accounts.create(
        tenant_id=tenant_id,
        email=email,
        name=name,
        role=role,
        password_hash=await kit.passwords.hash(password),
        keyed=keyed,
    )


async def change_user(
    kit: StateKit, *, tenant_id: str, user_id: str, changes: AccountChanges, check_version: VersionCheck
) -> Account:
    """Change a user of the tenant and end what a deactivated one has.

    Raises what `Accounts.change` raises.
    """
    if changes.get("active"):
        await _end_keys_of_inactive(kit, tenant_id=tenant_id, user_id=user_id)
    before, after = await kit.accounts.change(
        tenant_id=tenant_id, user_id=user_id, changes=changes, check_version=check_version
    )
    with suppress(StoreUnavailableError):
        if before.active and not after.active:
            await kit.logins.sweep(after)
            await kit.api_keys.delete_all_of(tenant_id=tenant_id, user_id=user_id)
        elif kit.logins.idle_s(before.role) != kit.logins.idle_s(after.role):
            await kit.logins.adopt_role(after)
    return after


async def _end_keys_of_inactive(kit: StateKit, *, tenant_id: str, user_id: str) -> None:
    """Delete keys that a deactivation left over because it was cut short, before they act again."""
    account = await kit.accounts.get(tenant_id=tenant_id, user_id=user_id)
    if not account.active:
        await kit.api_keys.delete_all_of(tenant_id=tenant_id, user_id=user_id)
