import asyncio
import random
from contextlib import suppress
from datetime import timedelta

import pytest

from app.core.errors import ConflictError, NotFoundError, VersionConflictError
from app.state.accounts import EmailTakenError, ResetRefusedError
from app.state.kit import StateKit
from app.state.last_admin import LastAdminError
from app.state.principals import Credential
from app.state.versions import VersionCheck
from tests.state.people import admit, ensure_indexes, new_account, new_person, new_tenant


@pytest.fixture(autouse=True)
async def indexes(kit: StateKit) -> None:
    await ensure_indexes(kit)


def expecting(version: int) -> VersionCheck:
    def check(current: int) -> None:
        if current != version:
            raise VersionConflictError(current_version=current)

    return check


async def active_admins(kit: StateKit, tenant_id: str) -> set[str]:
    rows = kit.mongo.collection("users").find({"tenant_id": tenant_id, "role": "admin", "active": True})
    return {row["_id"] async for row in rows}


async def test_one_address_belongs_to_one_user_in_all_tenants(kit: StateKit) -> None:
    tenants = [await new_tenant(kit) for _ in range(10)]

    async def register(tenant_id: str) -> bool:
        try:
            await kit.accounts.create(
                tenant_id=tenant_id, email="ada@example.com", name="Ada", role="admin", password_hash="x"
            )
        except EmailTakenError:
            return False
        return True

    assert sum(await asyncio.gather(*map(register, tenants))) == 1


async def test_a_role_change_is_seen_by_the_next_request_through_another_replica(
    kit: StateKit, other_kit: StateKit
) -> None:
    person = await new_person(kit, role="shipper")
    credential = Credential("login", person.login_id)
    for role in ("driver", "dispatcher", "underwriter"):
        assert (await admit(other_kit, credential)).principal is not None
        await kit.accounts.change(
            tenant_id=person.account.tenant_id, user_id=person.account.id, changes={"role": role}
        )
        principal = (await admit(other_kit, credential)).principal
        assert principal is not None
        assert principal.role == role


async def test_a_change_that_names_a_stale_version_changes_nothing(kit: StateKit) -> None:
    account = await new_account(kit)
    owner = {"tenant_id": account.tenant_id, "user_id": account.id}
    _, changed = await kit.accounts.change(**owner, changes={"name": "Grace"}, check_version=expecting(1))
    assert changed.version == 2
    with pytest.raises(VersionConflictError) as refused:
        await kit.accounts.change(**owner, changes={"name": "Edsger"}, check_version=expecting(1))
    assert refused.value.extra["current_version"] == 2
    assert (await kit.accounts.get(**owner)).name == "Grace"


async def test_of_many_changes_that_name_one_version_one_wins(kit: StateKit, other_kit: StateKit) -> None:
    account = await new_account(kit)

    async def change(number: int) -> bool:
        each = (kit, other_kit)[number % 2]
        try:
            await each.accounts.change(
                tenant_id=account.tenant_id,
                user_id=account.id,
                changes={"name": f"Name {number}"},
                check_version=expecting(1),
            )
        except VersionConflictError:
            return False
        return True

    assert sum(await asyncio.gather(*map(change, range(30)))) == 1


async def test_a_change_to_what_is_already_so_moves_no_version(kit: StateKit) -> None:
    account = await new_account(kit)
    before, after = await kit.accounts.change(
        tenant_id=account.tenant_id, user_id=account.id, changes={"name": account.name}
    )
    assert before == after == account


async def test_another_tenants_user_does_not_exist(kit: StateKit) -> None:
    account, elsewhere = await new_account(kit), await new_tenant(kit)
    assert await kit.accounts.find(tenant_id=elsewhere, user_id=account.id) is None
    with pytest.raises(NotFoundError):
        await kit.accounts.change(tenant_id=elsewhere, user_id=account.id, changes={"name": "Mallory"})
    assert await kit.accounts.page(tenant_id=elsewhere, after=None, limit=10) == []


async def test_pages_hold_every_user_of_the_tenant_once(kit: StateKit) -> None:
    tenant_id = await new_tenant(kit)
    expected = [(await new_account(kit, tenant_id=tenant_id)).id for _ in range(7)]
    seen: list[str] = []
    after = None
    while page := await kit.accounts.page(tenant_id=tenant_id, after=after, limit=3):
        seen += [account.id for account in page]
        after = (page[-1].created_at, page[-1].id)
    assert sorted(seen) == sorted(expected)
    assert len(seen) == 7


async def test_a_reset_token_sets_one_password_once(kit: StateKit) -> None:
    account = await new_account(kit)
    token, other = await kit.accounts.begin_reset(account), await kit.accounts.begin_reset(account)
    found = await kit.accounts.find_by_reset(token)
    assert found.id == account.id

    async def reset(number: int) -> bool:
        try:
            await kit.accounts.reset_password(found, token, f"hash-{number}")
        except ResetRefusedError:
            return False
        return True

    assert sum(await asyncio.gather(*map(reset, range(10)))) == 1
    for used in (token, other):
        with pytest.raises(ResetRefusedError):
            await kit.accounts.find_by_reset(used)


async def test_only_hashes_of_reset_tokens_are_stored_and_few(kit: StateKit) -> None:
    account = await new_account(kit)
    tokens = [await kit.accounts.begin_reset(account) for _ in range(5)]
    row = await kit.mongo.collection("users").find_one({"_id": account.id})
    assert len(row["resets"]) == 3
    assert not any(token.split(".")[1] in str(row) for token in tokens)
    assert (await kit.accounts.find_by_reset(tokens[-1])).id == account.id
    with pytest.raises(ResetRefusedError):
        await kit.accounts.find_by_reset(tokens[0])


async def test_a_reset_token_runs_out(kit: StateKit) -> None:
    account = await new_account(kit)
    token = await kit.accounts.begin_reset(account)
    users = kit.mongo.collection("users")
    row = await users.find_one({"_id": account.id})
    await users.update_one(
        {"_id": account.id},
        {"$set": {"resets": [{**row["resets"][0], "until": kit.clock.now() - timedelta(seconds=1)}]}},
    )
    with pytest.raises(ResetRefusedError):
        await kit.accounts.find_by_reset(token)
    with pytest.raises(ResetRefusedError):
        await kit.accounts.reset_password(account, token, "hash")


@pytest.mark.parametrize("token", ["", ".", "usr_", "x" * 5000, "usr_1.$where", "\0"])
async def test_what_is_no_reset_token_is_refused(kit: StateKit, token: str) -> None:
    with pytest.raises(ResetRefusedError):
        await kit.accounts.find_by_reset(token)


async def test_a_password_that_was_changed_meanwhile_is_not_replaced(kit: StateKit) -> None:
    account = await new_account(kit)
    changed = await kit.accounts.change_password(account, "second")
    assert changed is not None
    assert changed.epoch == account.epoch + 1
    assert await kit.accounts.change_password(account, "third") is None
    await kit.accounts.rehash_password(account, "fourth")
    assert (await kit.accounts.get(tenant_id=account.tenant_id, user_id=account.id)).password_hash == "second"


async def test_the_last_admin_stays(kit: StateKit) -> None:
    admin = await new_account(kit, role="admin")
    for changes in ({"role": "driver"}, {"active": False}):
        with pytest.raises(LastAdminError):
            await kit.accounts.change(tenant_id=admin.tenant_id, user_id=admin.id, changes=changes)
    assert await active_admins(kit, admin.tenant_id) == {admin.id}


async def test_an_admin_goes_when_another_remains_and_may_come_back(kit: StateKit) -> None:
    first = await new_account(kit, role="admin")
    second = await new_account(kit, role="admin", tenant_id=first.tenant_id)
    one = {"tenant_id": first.tenant_id, "user_id": first.id}
    other = {"tenant_id": first.tenant_id, "user_id": second.id}
    await kit.accounts.change(**one, changes={"role": "driver"})
    with pytest.raises(LastAdminError):
        await kit.accounts.change(**other, changes={"active": False})
    await kit.accounts.change(**one, changes={"role": "admin"})
    await kit.accounts.change(**other, changes={"active": False})
    with pytest.raises(LastAdminError):
        await kit.accounts.change(**one, changes={"role": "driver"})


async def test_an_inactive_admin_does_not_count(kit: StateKit) -> None:
    first = await new_account(kit, role="admin")
    second = await new_account(kit, role="admin", tenant_id=first.tenant_id)
    await kit.accounts.change(tenant_id=first.tenant_id, user_id=second.id, changes={"active": False})
    with pytest.raises(LastAdminError):
        await kit.accounts.change(tenant_id=first.tenant_id, user_id=first.id, changes={"role": "driver"})
    await kit.accounts.change(tenant_id=first.tenant_id, user_id=second.id, changes={"role": "driver"})


async def test_of_admins_who_all_demote_each_other_at_once_one_remains(
    kit: StateKit, other_kit: StateKit
) -> None:
    for round_number in range(10):
        tenant_id = await new_tenant(kit)
        admins = [
            await new_account(kit, role="admin", tenant_id=tenant_id) for _ in range(2 + round_number % 3)
        ]

        async def demote(number: int, user_id: str, tenant_id: str = tenant_id) -> None:
            each = (kit, other_kit)[number % 2]
            try:
                await each.accounts.change(tenant_id=tenant_id, user_id=user_id, changes={"role": "driver"})
            except ConflictError:
                return

        await asyncio.gather(*(demote(number, admin.id) for number, admin in enumerate(admins)))
        assert len(await active_admins(kit, tenant_id)) >= 1


async def test_a_demotion_that_died_half_way_does_not_block_the_others(kit: StateKit) -> None:
    first = await new_account(kit, role="admin")
    second = await new_account(kit, role="admin", tenant_id=first.tenant_id)
    await kit.accounts._last_admin.let_go(
        tenant_id=first.tenant_id, user_id=second.id, user_version=second.version
    )
    await kit.accounts.change(tenant_id=first.tenant_id, user_id=first.id, changes={"role": "driver"})
    assert await active_admins(kit, first.tenant_id) == {second.id}
    with pytest.raises(LastAdminError):
        await kit.accounts.change(tenant_id=first.tenant_id, user_id=second.id, changes={"role": "driver"})


async def test_a_demotion_that_was_paused_half_way_cannot_take_the_last_admin(kit: StateKit) -> None:
    first = await new_account(kit, role="admin")
    second = await new_account(kit, role="admin", tenant_id=first.tenant_id)
    await kit.accounts._last_admin.let_go(
        tenant_id=first.tenant_id, user_id=second.id, user_version=second.version
    )
    await kit.accounts.change(tenant_id=first.tenant_id, user_id=first.id, changes={"role": "driver"})
    woken = await kit.accounts._write(second, {"version": second.version}, {"$set": {"role": "driver"}})
    assert woken is None
    assert await active_admins(kit, first.tenant_id) == {second.id}


async def test_an_admin_remains_however_many_demotions_are_cut_short(
    kit: StateKit, other_kit: StateKit
) -> None:
    chance = random.Random(7)  # noqa: S311  # repeatable, and no secret
    for _ in range(15):
        tenant_id = await new_tenant(kit)
        admins = [await new_account(kit, role="admin", tenant_id=tenant_id) for _ in range(4)]

        async def toggle(user_id: str, tenant_id: str = tenant_id) -> None:
            each = chance.choice((kit, other_kit))
            role = chance.choice(("admin", "driver", "driver"))
            with suppress(ConflictError, TimeoutError):
                async with asyncio.timeout(chance.uniform(0, 0.03)):
                    await each.accounts.change(tenant_id=tenant_id, user_id=user_id, changes={"role": role})

        for _ in range(6):
            await asyncio.gather(*(toggle(chance.choice(admins).id) for _ in range(6)))
            assert await active_admins(kit, tenant_id)
        remaining = (await active_admins(kit, tenant_id)).pop()
        for admin in admins:
            if admin.id != remaining:
                await kit.accounts.change(tenant_id=tenant_id, user_id=admin.id, changes={"role": "driver"})
        assert await active_admins(kit, tenant_id) == {remaining}
