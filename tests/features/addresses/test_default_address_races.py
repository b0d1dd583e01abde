"""One default a user, whoever switches at the same time and whoever dies while switching."""

import asyncio
from typing import Any

import pytest

from app.core.errors import StoreUnavailableError
from app.features.addresses import service
from app.features.addresses.schemas import NewAddress
from app.features.addresses.store import DEFAULT_LEASE_S, AddressStore
from app.state.held_lock import LockLostError
from app.state.kit import StateKit
from app.state.session_documents import Owner
from app.state.versions import any_version
from tests.cluster.counts import full

ME = Owner("ten_a", "usr_a")
ROUNDS = full(100, 8)


@pytest.fixture
def address(hamburg: dict[str, Any]) -> NewAddress:
    return NewAddress.model_validate({**hamburg, "location": {"lat": 53.5, "lon": 10.0}})


async def defaults(kit: StateKit) -> list[str]:
    rows = kit.mongo.collection("addresses").find({**ME.filter, "is_default": True})
    return [row["_id"] async for row in rows]


async def test_of_those_who_switch_at_once_the_last_has_the_default_and_none_is_lost(
    kit: StateKit, other_kit: StateKit, address: NewAddress
) -> None:
    stores = [AddressStore(kit), AddressStore(other_kit)]
    made = [(await service.create(stores[0], ME, address))["_id"] for _ in range(4)]

    async def switch(n: int) -> dict[str, Any]:
        changes = {"is_default": True, "label": f"by {n}"}
        return await service.change(stores[n % 2], ME, made[n], changes, any_version)

    for _ in range(ROUNDS):
        answers = await asyncio.gather(*(switch(n) for n in range(4)))
        found = await defaults(kit)
        assert len(found) == 1
        assert {answer["label"] for answer in answers} == {f"by {n}" for n in range(4)}
        winner = await stores[1].get(ME, found[0])
        assert winner["version"] == answers[made.index(found[0])]["version"]


async def test_a_switch_whose_process_froze_half_way_changed_nothing_and_is_got_over(
    kit: StateKit, other_kit: StateKit, address: NewAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = AddressStore(kit), AddressStore(other_kit)
    first = await service.create(store, ME, address.model_copy(update={"is_default": True}))
    second = await service.create(store, ME, address)
    third = await service.create(store, ME, address)
    half_way, never = asyncio.Event(), asyncio.Event()

    async def freeze(*_: Any, **__: Any) -> None:
        half_way.set()
        await never.wait()

    give_default = {"is_default": True}
    frozen_rows = store._rows
    original = frozen_rows.update_one

    async def takes_but_does_not_give(wanted: Any, update: Any, **options: Any) -> Any:
        if wanted["_id"] == second["_id"]:
            await freeze()
        return await original(wanted, update, **options)

    class HalfWay:
        """The real collection, whose writer stops before the second statement of the transaction."""

        update_one = staticmethod(takes_but_does_not_give)

    monkeypatch.setattr(store, "_rows", HalfWay())
    sleeper = asyncio.create_task(service.change(store, ME, second["_id"], give_default, any_version))
    await half_way.wait()
    assert await defaults(other_kit) == [first["_id"]]
    async with asyncio.timeout(10 * DEFAULT_LEASE_S):
        await service.change(other, ME, third["_id"], give_default, any_version)
    assert await defaults(other_kit) == [third["_id"]]
    never.set()
    with pytest.raises((LockLostError, StoreUnavailableError)):
        await sleeper
    assert await defaults(other_kit) == [third["_id"]]
