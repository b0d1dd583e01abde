import asyncio
import secrets
from datetime import timedelta
from typing import Any

import pytest

from app.core.errors import NotFoundError, RefreshReusedError, UnauthenticatedError
from app.core.settings import Settings
from app.state.kit import StateKit, open_kit
from app.state.principals import Credential
from tests.engines import RedisEngine
from tests.state.people import (
    DEVICE,
    Person,
    admit,
    ensure_indexes,
    is_admitted,
    log_in,
    new_account,
    new_person,
)
from tests.waiting import held_by_one_task


@pytest.fixture
async def person(kit: StateKit) -> Person:
    await ensure_indexes(kit)
    return await new_person(kit)


async def stored(kit: StateKit, person: Person) -> dict[str, Any]:
    return await kit.mongo.collection("logins").find_one({"_id": person.login_id})


async def age_rotations(kit: StateKit, person: Person) -> None:
    """Let the grace of every rotation so far be over."""
    row = await stored(kit, person)
    rotated = [
        {**entry, "until": kit.clock.now() - timedelta(seconds=1)} for entry in row["refresh"]["rotated"]
    ]
    await kit.mongo.collection("logins").update_one(
        {"_id": row["_id"]}, {"$set": {"refresh.rotated": rotated}}
    )


async def test_a_rotation_gives_a_new_token_that_rotates_in_turn(kit: StateKit, person: Person) -> None:
    login, second = await kit.logins.rotate(person.refresh_token)
    assert login.id == person.login_id
    _, third = await kit.logins.rotate(second.text)
    assert len({person.refresh_token, second.text, third.text}) == 3
    assert [second.generation, third.generation] == [2, 3]


async def test_only_hashes_of_refresh_tokens_are_stored(kit: StateKit, person: Person) -> None:
    _, second = await kit.logins.rotate(person.refresh_token)
    row = str(await stored(kit, person))
    for text in (person.refresh_token, second.text):
        assert text not in row
        assert text.split(".")[2] not in row


async def test_within_the_grace_the_same_successor_comes_back(
    kit: StateKit, other_kit: StateKit, person: Person
) -> None:
    _, second = await kit.logins.rotate(person.refresh_token)
    assert (await other_kit.logins.rotate(person.refresh_token))[1].text == second.text
    assert (await kit.logins.rotate(person.refresh_token))[1].text == second.text


async def test_within_the_grace_it_comes_back_even_if_it_was_rotated_itself(
    kit: StateKit, person: Person
) -> None:
    _, second = await kit.logins.rotate(person.refresh_token)
    _, third = await kit.logins.rotate(second.text)
    assert (await kit.logins.rotate(person.refresh_token))[1].text == second.text
    assert (await kit.logins.rotate(second.text))[1].text == third.text


async def test_a_hundred_rotations_of_one_token_at_once_give_one_successor(
    kit: StateKit, other_kit: StateKit, person: Person
) -> None:
    kits = [kit, other_kit] * 50
    results = await asyncio.gather(*(each.logins.rotate(person.refresh_token) for each in kits))
    assert len({token.text for _, token in results}) == 1
    assert (await stored(kit, person))["refresh"]["generation"] == 2


async def test_reuse_after_the_grace_ends_the_login_on_every_replica(
    kit: StateKit, other_kit: StateKit, person: Person
) -> None:
    assert await is_admitted(kit, person.login_id)
    assert await is_admitted(other_kit, person.login_id)
    _, second = await kit.logins.rotate(person.refresh_token)
    await age_rotations(kit, person)
    with pytest.raises(RefreshReusedError):
        await kit.logins.rotate(person.refresh_token)
    assert not await is_admitted(other_kit, person.login_id)
    assert not await is_admitted(kit, person.login_id)
    with pytest.raises(UnauthenticatedError):
        await other_kit.logins.rotate(second.text)


@pytest.mark.settings(refresh_grace_s=0)
async def test_without_a_grace_the_second_use_is_a_reuse(kit: StateKit, person: Person) -> None:
    await kit.logins.rotate(person.refresh_token)
    with pytest.raises(RefreshReusedError):
        await kit.logins.rotate(person.refresh_token)


async def test_the_token_in_force_never_counts_as_reused_however_late(kit: StateKit, person: Person) -> None:
    _, second = await kit.logins.rotate(person.refresh_token)
    await age_rotations(kit, person)
    assert (await kit.logins.rotate(second.text))[1].generation == 3


async def test_a_made_up_token_for_a_known_login_harms_nobody(kit: StateKit, person: Person) -> None:
    prefix, generation, secret, tag = person.refresh_token.split(".")
    for forged in (
        f"{prefix}.{generation}.{secrets.token_urlsafe(32)}.{tag}",
        f"{prefix}.7.{secret}.{tag}",
        f"{prefix}.{generation}.{secret}.{'A' * len(tag)}",
    ):
        with pytest.raises(UnauthenticatedError) as refused:
            await kit.logins.rotate(forged)
        assert refused.value.code == "unauthenticated"
    assert await is_admitted(kit, person.login_id)
    assert (await kit.logins.rotate(person.refresh_token))[1].generation == 2


async def test_an_expired_login_rotates_no_more_and_is_not_a_reuse(kit: StateKit, person: Person) -> None:
    await kit.mongo.collection("logins").update_one(
        {"_id": person.login_id}, {"$set": {"expires_at": kit.clock.now() - timedelta(seconds=1)}}
    )
    with pytest.raises(UnauthenticatedError) as refused:
        await kit.logins.rotate(person.refresh_token)
    assert refused.value.code == "unauthenticated"


async def test_rotations_move_the_idle_end_on_but_never_beyond_the_absolute_one(
    kit: StateKit, person: Person
) -> None:
    logins = kit.mongo.collection("logins")
    soon = kit.clock.now() + timedelta(seconds=30)
    await logins.update_one({"_id": person.login_id}, {"$set": {"expires_at": soon}})
    login, second = await kit.logins.rotate(person.refresh_token)
    idle_left_s = (login.expires_at - kit.clock.now()).total_seconds()
    assert 7200 - 30 < idle_left_s <= 7201
    await logins.update_one({"_id": person.login_id}, {"$set": {"ends_at": soon}})
    login, _ = await kit.logins.rotate(second.text)
    assert login.expires_at == login.ends_at


async def test_using_a_login_moves_its_idle_end_on_by_the_idle_time_only(
    kit: StateKit, person: Person
) -> None:
    almost_over = kit.clock.now() + timedelta(seconds=60)
    await kit.mongo.collection("logins").update_one(
        {"_id": person.login_id},
        {"$set": {"last_seen_at": kit.clock.now() - timedelta(seconds=7140), "expires_at": almost_over}},
    )
    assert await is_admitted(kit, person.login_id)
    row = await stored(kit, person)
    idle_left_s = (row["expires_at"] - kit.clock.now()).total_seconds()
    assert 7200 - 30 < idle_left_s <= 7201


async def test_the_rotated_tokens_that_are_kept_are_bounded(kit: StateKit, person: Person) -> None:
    text = person.refresh_token
    for _ in range(40):
        text = (await kit.logins.rotate(text))[1].text
    assert len((await stored(kit, person))["refresh"]["rotated"]) == 16


async def test_a_login_rotates_across_a_change_of_the_server_secret(
    settings: Settings, kit: StateKit
) -> None:
    person = await new_person(kit)
    old = settings.jwt_secret.get_secret_value()
    renewed = settings.model_copy(
        update={
            "jwt_secret": type(settings.jwt_secret)(secrets.token_urlsafe(48)),
            "jwt_secret_previous": type(settings.jwt_secret)(old),
        }
    )
    async with held_by_one_task(open_kit(renewed)) as after:
        _, by_old = await kit.logins.rotate(person.refresh_token)
        assert (await after.logins.rotate(person.refresh_token))[1].text == by_old.text
        _, by_new = await after.logins.rotate(by_old.text)
        assert (await after.logins.rotate(by_old.text))[1].text == by_new.text
        with pytest.raises(UnauthenticatedError):
            await kit.logins.rotate(by_new.text)
        assert await is_admitted(kit, person.login_id)


async def test_an_ended_login_is_refused_at_once_by_a_replica_that_had_it_hot(
    kit: StateKit, other_kit: StateKit, person: Person
) -> None:
    owner = {"tenant_id": person.account.tenant_id, "user_id": person.account.id}
    assert await is_admitted(other_kit, person.login_id)
    await kit.logins.end(**owner, login_id=person.login_id)
    assert not await is_admitted(other_kit, person.login_id)
    with pytest.raises(NotFoundError):
        await kit.logins.end(**owner, login_id=person.login_id)


async def test_nobody_ends_the_login_of_another(kit: StateKit, person: Person) -> None:
    colleague = await new_account(kit, tenant_id=person.account.tenant_id)
    stranger = await new_account(kit)
    for account in (colleague, stranger):
        with pytest.raises(NotFoundError):
            await kit.logins.end(tenant_id=account.tenant_id, user_id=account.id, login_id=person.login_id)
    assert await is_admitted(kit, person.login_id)


async def test_a_wiped_redis_revives_no_ended_login(
    kit: StateKit, person: Person, redis_engine: RedisEngine
) -> None:
    assert await is_admitted(kit, person.login_id)
    await kit.logins.end(
        tenant_id=person.account.tenant_id, user_id=person.account.id, login_id=person.login_id
    )
    redis_engine.flush()
    assert not await is_admitted(kit, person.login_id)


async def test_a_new_epoch_ends_all_logins_but_the_one_carried_over(
    kit: StateKit, other_kit: StateKit, person: Person
) -> None:
    second = await log_in(kit, person.account)
    for login_id in (person.login_id, second.login_id):
        assert await is_admitted(other_kit, login_id)
    account = await kit.accounts.end_logins(tenant_id=person.account.tenant_id, user_id=person.account.id)
    for login_id in (person.login_id, second.login_id):
        assert not await is_admitted(other_kit, login_id)
    await kit.logins.carry_over(account, second.login_id)
    assert await is_admitted(other_kit, second.login_id)
    assert not await is_admitted(other_kit, person.login_id)
    await kit.logins.sweep(account)
    rows = await kit.mongo.collection("logins").find({"user_id": account.id}).to_list(None)
    assert [row["_id"] for row in rows] == [second.login_id]


async def test_a_login_that_began_before_the_epoch_moved_is_dead(kit: StateKit, person: Person) -> None:
    before = person.account
    await kit.accounts.end_logins(tenant_id=before.tenant_id, user_id=before.id)
    late = await log_in(kit, before)
    assert not await is_admitted(kit, late.login_id)


async def test_drivers_may_stay_away_for_longer(kit: StateKit) -> None:
    driver, shipper = await new_account(kit, role="driver"), await new_account(kit, role="shipper")
    for account, idle_s in ((driver, 8 * 3600), (shipper, 2 * 3600)):
        login, _ = await kit.logins.start(account, DEVICE)
        assert round((login.expires_at - login.created_at).total_seconds()) == idle_s


async def test_the_list_shows_the_living_logins_of_one_user_newest_first(
    kit: StateKit, person: Person
) -> None:
    account = person.account
    mine = [person.login_id, *[(await log_in(kit, account)).login_id for _ in range(4)]]
    await new_person(kit, tenant_id=account.tenant_id)
    await kit.mongo.collection("logins").update_one(
        {"_id": mine.pop(1)}, {"$set": {"expires_at": kit.clock.now() - timedelta(seconds=1)}}
    )
    owner = {"tenant_id": account.tenant_id, "user_id": account.id, "epoch": account.epoch}
    first = await kit.logins.page(**owner, after=None, limit=3)
    rest = await kit.logins.page(**owner, after=(first[-1].created_at, first[-1].id), limit=3)
    assert {login.id for login in first + rest} == set(mine)
    assert len(first + rest) == 4
    assert [login.created_at for login in first + rest] == sorted(
        (login.created_at for login in first + rest), reverse=True
    )


async def test_a_deactivated_users_login_is_refused_though_it_is_hot(
    kit: StateKit, other_kit: StateKit, person: Person
) -> None:
    assert (await admit(other_kit, Credential("login", person.login_id))).principal is not None
    await kit.accounts.change(
        tenant_id=person.account.tenant_id, user_id=person.account.id, changes={"active": False}
    )
    assert not await is_admitted(other_kit, person.login_id)
    await kit.accounts.change(
        tenant_id=person.account.tenant_id, user_id=person.account.id, changes={"active": True}
    )
    assert not await is_admitted(other_kit, person.login_id)
