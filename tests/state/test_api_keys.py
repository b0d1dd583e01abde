import asyncio
import hashlib

import pytest

from app.core.errors import NotFoundError
from app.state.api_keys import KEYS_MAX, ApiKeyLimitError
from app.state.kit import StateKit
from app.state.principals import Credential
from tests.state.people import admit, ensure_indexes, new_account


@pytest.fixture(autouse=True)
async def indexes(kit: StateKit) -> None:
    await ensure_indexes(kit)


def credential_of(text: str) -> Credential:
    key_id, _, secret = text.partition(".")
    return Credential("api_key", key_id, proof=hashlib.sha256(secret.encode()).hexdigest())


async def test_a_key_acts_as_its_user_until_it_is_deleted_through_another_replica(
    kit: StateKit, other_kit: StateKit
) -> None:
    account = await new_account(kit, role="shipper")
    owner = {"tenant_id": account.tenant_id, "user_id": account.id}
    key, text = await kit.api_keys.create(**owner, name="ERP", tier="premium")
    for _ in range(2):
        principal = (await admit(kit, credential_of(text))).principal
        assert principal is not None
        assert (principal.user_id, principal.role, principal.tier) == (account.id, "shipper", "premium")
    await other_kit.api_keys.delete(**owner, key_id=key.id)
    assert (await admit(kit, credential_of(text))).principal is None
    with pytest.raises(NotFoundError):
        await kit.api_keys.delete(**owner, key_id=key.id)


async def test_a_key_with_another_secret_is_nobodys(kit: StateKit) -> None:
    account = await new_account(kit)
    key, text = await kit.api_keys.create(
        tenant_id=account.tenant_id, user_id=account.id, name="ERP", tier="standard"
    )
    forged = credential_of(f"{key.id}.{'A' * 43}")
    assert (await admit(kit, forged)).principal is None
    assert (await admit(kit, credential_of(text))).principal is not None
    assert (await admit(kit, forged)).principal is None


async def test_a_key_of_a_deactivated_user_is_refused_at_once(kit: StateKit, other_kit: StateKit) -> None:
    account = await new_account(kit)
    owner = {"tenant_id": account.tenant_id, "user_id": account.id}
    _, text = await kit.api_keys.create(**owner, name="ERP", tier="standard")
    assert (await admit(other_kit, credential_of(text))).principal is not None
    await kit.accounts.change(**owner, changes={"active": False})
    assert (await admit(other_kit, credential_of(text))).principal is None


async def test_the_secret_is_not_stored(kit: StateKit) -> None:
    account = await new_account(kit)
    _, text = await kit.api_keys.create(
        tenant_id=account.tenant_id, user_id=account.id, name="ERP", tier="standard"
    )
    row = await kit.mongo.collection("api_keys").find_one({"user_id": account.id})
    assert text.partition(".")[2] not in str(row)


async def test_a_user_has_no_more_than_the_limit_however_many_are_made_at_once(
    kit: StateKit, other_kit: StateKit
) -> None:
    account = await new_account(kit)
    owner = {"tenant_id": account.tenant_id, "user_id": account.id}

    async def create(number: int) -> bool:
        each = (kit, other_kit)[number % 2]
        try:
            await each.api_keys.create(**owner, name=f"key {number}", tier="standard")
        except ApiKeyLimitError:
            return False
        return True

    assert sum(await asyncio.gather(*map(create, range(KEYS_MAX + 10)))) == KEYS_MAX
    keys = await kit.api_keys.all_of(**owner)
    assert len(keys) == KEYS_MAX
    await kit.api_keys.delete(**owner, key_id=keys[0].id)
    assert await create(99)
    await kit.api_keys.delete_all_of(**owner)
    assert await kit.api_keys.all_of(**owner) == []


async def test_nobody_deletes_or_sees_the_key_of_another(kit: StateKit) -> None:
    account = await new_account(kit)
    colleague = await new_account(kit, tenant_id=account.tenant_id)
    key, text = await kit.api_keys.create(
        tenant_id=account.tenant_id, user_id=account.id, name="ERP", tier="standard"
    )
    assert await kit.api_keys.all_of(tenant_id=colleague.tenant_id, user_id=colleague.id) == []
    with pytest.raises(NotFoundError):
        await kit.api_keys.delete(tenant_id=colleague.tenant_id, user_id=colleague.id, key_id=key.id)
    assert (await admit(kit, credential_of(text))).principal is not None
