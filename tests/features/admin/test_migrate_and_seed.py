"""migrate and seed, on real stores."""

import asyncio

import pytest

from app.core.errors import StoreUnavailableError
from app.core.settings import Settings, SettingsError
from app.features.admin.demo_credit import APPLICATIONS
from app.features.admin.demo_freight import ADDRESS_BOOK, BOOKINGS
from app.features.admin.migrate import migrate
from app.features.admin.seed import COMPANIES, DEMO_PASSWORD, seed
from app.features.bookings.transitions import STATUSES
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
    after = await contents(kit)
    for stored in (before, after):
        for passing in ("locks", "processes"):
            del stored[passing]
    assert after == before


async def test_seeding_at_once_makes_everything_once(settings: Settings, kit: StateKit) -> None:
    await asyncio.gather(*(seed(settings) for _ in range(3)))
    stored = await contents(kit)
    assert len(stored["tenants"]) == len(COMPANIES)
    assert len(stored["users"]) == sum(len(company.users) for company in COMPANIES)
    for name, many in (
        ("sessions", 3),
        ("addresses", len(ADDRESS_BOOK)),
        ("bookings", len(BOOKINGS)),
        ("applications", len(APPLICATIONS)),
    ):
        assert len(stored[name]) == many * len(COMPANIES)


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


async def test_the_demo_shipper_has_an_address_book_and_bookings_in_every_state(
    settings: Settings, kit: StateKit
) -> None:
    await seed(settings)
    shipper = await kit.accounts.find_by_email("shipper@nordwind.example")
    assert shipper is not None
    owner = Owner(shipper.tenant_id, shipper.id).filter
    bookings = [row async for row in kit.mongo.collection("bookings").find(owner)]
    assert {booking["status"] for booking in bookings} == set(STATUSES)
    assert all(booking["status"] == booking["events"][-1]["status"] for booking in bookings)
    assert await kit.mongo.collection("addresses").count_documents({**owner, "is_default": True}) == 1


async def test_seeding_goes_on_with_what_was_cut_short(settings: Settings, kit: StateKit) -> None:
    await seed(settings)
    bookings = kit.mongo.collection("bookings")
    closed = await bookings.find_one({"status": "closed"})
    assert closed is not None
    half_way = {"status": "assigned", "version": 2, "events": closed["events"][:2]}
    await bookings.update_one({"_id": closed["_id"]}, {"$set": half_way})
    await bookings.delete_one({"status": "cancelled"})
    await seed(settings)
    again = await bookings.find_one({"_id": closed["_id"]})
    assert again is not None
    assert [event["status"] for event in again["events"]] == [event["status"] for event in closed["events"]]
    assert await bookings.count_documents({"status": "cancelled"}) == len(COMPANIES)


async def test_the_demo_company_has_applications_in_every_state_that_people_bring_them_to(
    settings: Settings, kit: StateKit
) -> None:
    await seed(settings)
    shipper = await kit.accounts.find_by_email("shipper@nordwind.example")
    assert shipper is not None
    applications = kit.mongo.collection("applications")
    found = [row async for row in applications.find(Owner(shipper.tenant_id, shipper.id).filter)]
    assert {row["status"] for row in found} == {"pending", "in_review", "approved", "rejected"}
    assert all(row["version"] == len(row["history"]) for row in found)
    approved = next(row for row in found if row["status"] == "approved")
    assert {event["actor"]["role"] for event in approved["history"]} == {"shipper", "underwriter"}


async def test_seeding_goes_on_with_applications_and_leaves_those_that_somebody_touched(
    settings: Settings, kit: StateKit
) -> None:
    await seed(settings)
    applications = kit.mongo.collection("applications")
    cut, touched = [row async for row in applications.find({"status": "approved"}).limit(2)]
    beginning = {"status": "in_review", "version": 3, "history": cut["history"][:3]}
    await applications.update_one({"_id": cut["_id"]}, {"$set": beginning})
    other = {**touched["history"][0], "version": 2, "note": "By hand"}
    left = {"status": "pending", "version": 2, "history": [touched["history"][0], other]}
    await applications.update_one({"_id": touched["_id"]}, {"$set": {**left, "reviewer": None}})
    await seed(settings)
    for row, status in ((cut, "approved"), (touched, "pending")):
        again = await applications.find_one({"_id": row["_id"]})
        assert again is not None
        assert again["status"] == status


async def test_production_is_not_seeded(settings: Settings, kit: StateKit) -> None:
    with pytest.raises(SettingsError):
        await seed(settings.model_copy(update={"app_env": "production"}))
    assert await kit.mongo.collection("users").count_documents({}) == 0
