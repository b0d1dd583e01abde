"""`./cargoflow seed`: a demo company to look around in, and a second one that must not see the first.

Idempotent: people are known by their e-mail addresses, sessions by their types, and what is there stays as it
is. Cut short, a second run does the rest. Two at once take turns. The
logins are public knowledge, hence never in production.
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from app.core.errors import StoreUnavailableError
from app.core.settings import Settings, SettingsError
from app.features.admin.demo_credit import add_credit
from app.features.admin.demo_freight import add_freight
from app.state.accounts import EmailTakenError
from app.state.kit import StateKit, open_kit
from app.state.principals import Role
from app.state.session_documents import Owner, SessionType
from app.state.session_slots import SessionLimitError

DEMO_PASSWORD = "demo-freight-2026"  # noqa: S105  # printed by the command itself, and refused in production

LOCK_WAIT_S = 60.0
"""How long to wait for somebody else who seeds; longer than a dead one's lease."""


@dataclass(frozen=True, slots=True)
class DemoUser:
    """Somebody to log in as."""

    email: str
    name: str
    role: Role


@dataclass(frozen=True, slots=True)
class DemoCompany:
    """A tenant and its people; the first of them is the admin who registered it."""

    name: str
    users: tuple[DemoUser, ...]

    @property
    def reviewer(self) -> DemoUser:
        """Who decides on applications: its underwriter, or else its admin."""
        return next((user for user in self.users if user.role == "underwriter"), self.users[0])


COMPANIES = (
    DemoCompany(
        "Nordwind Logistics",
        (
            DemoUser("admin@nordwind.example", "Ada Brandt", "admin"),
            DemoUser("dispatcher@nordwind.example", "Dirk Petersen", "dispatcher"),
            DemoUser("underwriter@nordwind.example", "Uta Lindqvist", "underwriter"),
            DemoUser("driver@nordwind.example", "Dario Costa", "driver"),
            DemoUser("shipper@nordwind.example", "Sofia Marek", "shipper"),
        ),
    ),
    DemoCompany(
        "Alpenfracht",
        (
            DemoUser("admin@alpenfracht.example", "Anton Huber", "admin"),
            DemoUser("shipper@alpenfracht.example", "Selma Egger", "shipper"),
        ),
    ),
)

_SESSIONS: tuple[tuple[SessionType, dict[str, Any]], ...] = (
    ("preferences", {"theme": "dark", "language": "en", "units": "metric"}),
    ("cart", {"items": [{"equipment": "dry_van", "pallets": 12}, {"equipment": "reefer", "pallets": 4}]}),
)


async def seed(settings: Settings) -> str:
    """Add what is missing of the demo and return its logins as text, for people.

    Raises SettingsError in production, StoreUnavailableError if MongoDB can't be reached.
    """
    if settings.production:
        raise SettingsError("APP_ENV: seed makes users with a known password, which production must not have")
    async with open_kit(settings) as kit:
        await kit.mongo.probe()
        reached = kit.mongo.health.status == "pass"
        if reached:
            hashed = await kit.passwords.hash(DEMO_PASSWORD)
            for company in COMPANIES:
                await _add_company(kit, company, hashed)
    if not reached:
        raise StoreUnavailableError("MongoDB")
    width = max(len(user.email) for company in COMPANIES for user in company.users)
    lines = [f"Password of all demo users: {DEMO_PASSWORD}"]
    for company in COMPANIES:
        lines += ["", company.name]
        lines += [f"  {user.email:<{width}}  {user.role}" for user in company.users]
    return "\n".join(lines)


async def _add_company(kit: StateKit, company: DemoCompany, password_hash: str) -> None:
    tenant_id = await _tenant_of(kit, company, password_hash)
    for user in company.users[1:]:
        await _add_user(kit, tenant_id, user, password_hash)
    admin, reviewer, shipper = [
        await kit.accounts.find_by_email(user.email)
        for user in (company.users[0], company.reviewer, company.users[-1])
    ]
    if admin is not None and reviewer is not None and shipper is not None:
        async with kit.locks.hold(f"seed:{tenant_id}", wait_s=LOCK_WAIT_S):
            await _add_sessions(kit, Owner(shipper.tenant_id, shipper.id))
            await add_freight(kit, shipper, admin)
            await add_credit(kit, shipper, reviewer)


async def _tenant_of(kit: StateKit, company: DemoCompany, password_hash: str) -> str:
    """Return the tenant of the company's first admin, making both if there is no such user.

    Whoever else seeds at the same moment: the unique address decides, the loser's tenant goes.
    """
    admin = company.users[0]
    existing = await kit.accounts.find_by_email(admin.email)
    while existing is None:
        tenant = await kit.tenants.create(name=company.name)
        if not await _add_user(kit, tenant.id, admin, password_hash):
            await kit.tenants.remove_unused(tenant.id)
        existing = await kit.accounts.find_by_email(admin.email)
    return existing.tenant_id


async def _add_user(kit: StateKit, tenant_id: str, user: DemoUser, password_hash: str) -> bool:
    try:
        await kit.accounts.create(
            tenant_id=tenant_id, email=user.email, name=user.name, role=user.role, password_hash=password_hash
        )
    except EmailTakenError:
        return False
    return True


async def _add_sessions(kit: StateKit, owner: Owner) -> None:
    for session_type, data in _SESSIONS:
        if not await kit.sessions.page(owner, session_type=session_type, limit=1):
            with suppress(SessionLimitError):
                await kit.sessions.create(owner, session_type, data)
