"""Users and logins made straight in the stores, for tests that are about something else than registering."""

from dataclasses import dataclass

from app.core.ids import new_id
from app.state import accounts, api_keys, logins
from app.state.accounts import Account
from app.state.kit import StateKit
from app.state.logins import Device
from app.state.principals import Admission, Credential, Role
from app.state.rate_limits import Limit, Rate

DEVICE = Device("pytest", "127.0.0.1")
_UNLIMITED = Rate("anonymous", 1_000_000, 60)


@dataclass(frozen=True)
class Person:
    """A user who is logged in."""

    account: Account
    login_id: str
    refresh_token: str
    access_token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.access_token}"}


async def ensure_indexes(kit: StateKit) -> None:
    for module in (accounts, api_keys, logins):
        await module.ensure_indexes(kit.mongo)


async def new_tenant(kit: StateKit) -> str:
    return (await kit.tenants.create(name="Nordwind")).id


async def new_account(
    kit: StateKit,
    *,
    role: Role = "dispatcher",
    tenant_id: str | None = None,
    password_hash: str | None = None,
) -> Account:
    return await kit.accounts.create(
        tenant_id=tenant_id or await new_tenant(kit),
        email=f"{new_id('tst').lower()}@example.com",
        name="Ada",
        role=role,
        password_hash=password_hash or "none",
    )


async def log_in(kit: StateKit, account: Account) -> Person:
    login, token = await kit.logins.start(account, DEVICE)
    access_token = kit.tokens.mint(
        login_id=login.id, user_id=account.id, tenant_id=account.tenant_id, issued_at=kit.clock.now()
    )
    return Person(account, login.id, token.text, access_token)


async def new_person(kit: StateKit, *, role: Role = "dispatcher", tenant_id: str | None = None) -> Person:
    return await log_in(kit, await new_account(kit, role=role, tenant_id=tenant_id))


async def admit(kit: StateKit, credential: Credential) -> Admission:
    return await kit.principals.admit(credential, anonymous=Limit(_UNLIMITED, "127.0.0.1"))


async def is_admitted(kit: StateKit, login_id: str) -> bool:
    return (await admit(kit, Credential("login", login_id))).principal is not None


async def colleague(kit: StateKit, person: Person, role: Role) -> Person:
    """Return somebody else of the person's tenant, logged in."""
    return await log_in(kit, await new_account(kit, role=role, tenant_id=person.account.tenant_id))
