"""migrate and seed, on real stores."""

import asyncio

import pytest

from app.core.errors import StoreUnavailableError
from app.core.settings import Settings, SettingsError
from app.features.admin.migrate import migrate
from app.features.admin.seed import COMPANIES, DEMO_PASSWORD, seed
from app.state.kit import StateKit
from app.state.session_documents import Owner
from tests.engines import MongoEngine


async def contents(kit: StateKit) -> dict[str, list[object]]:
    """Everything that is stored, by collection."""
    return {
        name: [row async for row in kit.mongo.collection(name).find().sort("_id")]
        for name in await kit.mongo.database.list_collection_names()
    }


async def test_migrating_makes_the_indexes_and_says_which(settings: Settings, kit: StateKit) -> None:
    rows = kit.mongo.collection("sessions")
    await rows.drop_indexes()
    assert set(await rows.index_information()) == {"_id_"}
    lines = (await migrate(settings)).splitlines()
    assert any(line.startswith("sessions: ") and "one_session_a_slot" in line for line in lines)
    assert (await rows.index_information())["one_session_a_slot"]["unique"]


async def test_migrating_twice_and_at_once_changes_nothing_more(settings: Settings, kit: StateKit) -> None:
    first = await migrate(settings)
    assert await asyncio.gather(*(migrate(settings) for _ in range(3))) == [first] * 3


async def test_migrating_without_mongodb_says_so_soon(settings: Settings, mongo_engine: MongoEngine) -> None:
    mongo_engine.freeze()
    async with asyncio.timeout(60):
        with pytest.raises(StoreUnavailableError):
            await migrate(settings)


async def test_seeding_makes_users_of_every_role_who_can_log_in(settings: Settings, kit: StateKit) -> None:
    text = await seed(settings)
    assert DEMO_PASSWORD in text
    roles = set()
    tenants = set()
    for company in COMPANIES:
        for user in company.users:
            assert user.email in text
            account = await kit.accounts.find_by_email(user.email)
            assert account is not None
            assert account.role == user.role
            assert await kit.passwords.matches(DEMO_PASSWORD, account.password_hash)
            roles.add(account.role)
            tenants.add(account.tenant_id)
    assert roles == {"admin", "dispatcher", "underwriter", "driver", "shipper"}
    assert len(tenants) == len(COMPANIES)


async def test_seeding_again_adds_and_changes_nothing(settings: Settings, kit: StateKit) -> None:
    first = await seed(settings)
    before = await contents(kit)
    assert await seed(settings) == first
    assert await contents(kit) == before


async def test_seeding_at_once_makes_everything_once(settings: Settings, kit: StateKit) -> None:
    await asyncio.gather(*(seed(settings) for _ in range(3)))
    stored = await contents(kit)
    assert len(stored["tenants"]) == len(COMPANIES)
    assert len(stored["users"]) == sum(len(company.users) for company in COMPANIES)


async def test_seeding_without_mongodb_says_so(settings: Settings, mongo_engine: MongoEngine) -> None:
    mongo_engine.freeze()
    async with asyncio.timeout(60):
        with pytest.raises(StoreUnavailableError):
            await seed(settings)


async def test_the_demo_shipper_finds_sessions(settings: Settings, kit: StateKit) -> None:
    await seed(settings)
    shipper = await kit.accounts.find_by_email("shipper@nordwind.example")
    assert shipper is not None
    found = await kit.sessions.page(Owner(shipper.tenant_id, shipper.id), limit=10)
    assert {session.type for session in found} == {"preferences", "cart", "booking_draft"}


async def test_production_is_not_seeded(settings: Settings, kit: StateKit) -> None:
    with pytest.raises(SettingsError):
        await seed(settings.model_copy(update={"app_env": "production"}))
    assert await kit.mongo.collection("users").count_documents({}) == 0
