"""Versioned documents, on the real store."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from app.core.errors import NotFoundError, PreconditionFailedError, VersionConflictError
from app.core.settings import Settings
from app.http.etags import WriteCondition
from app.state.documents import VersionedDocuments, give_versions
from app.state.kit import StateKit, open_kit
from tests.cluster.counts import full
from tests.waiting import held_by_one_task, until

WRITERS = 100
ROUNDS = full(50, 5)
MINE = {"tenant_id": "ten_a", "user_id": "usr_a"}
OTHERS = {"tenant_id": "ten_b", "user_id": "usr_a"}


@pytest.fixture
async def stores(settings: Settings) -> AsyncIterator[list[VersionedDocuments]]:
    """The same collection through three replicas."""
    async with AsyncExitStack() as stack:
        kits = [await stack.enter_async_context(held_by_one_task(open_kit(settings))) for _ in range(3)]
        for kit in kits:
            await until(lambda kit=kit: kit.mongo.health.status == "pass")
        yield [VersionedDocuments(kit.mongo, "loads", clock=kit.clock) for kit in kits]


@pytest.fixture
def loads(kit: StateKit) -> VersionedDocuments:
    return VersionedDocuments(kit.mongo, "loads", clock=kit.clock)


async def insert(store: VersionedDocuments, document_id: str = "lod_1", **fields: Any) -> None:
    await store._documents.insert_one({"_id": document_id, **MINE, "version": 1, "n": 0, **fields})


async def outcomes(calls: list[Awaitable[Any]]) -> Counter[str]:
    results = await asyncio.gather(*calls, return_exceptions=True)
    return Counter(type(result).__name__ if isinstance(result, BaseException) else "ok" for result in results)


async def test_of_a_hundred_writers_of_one_version_exactly_one_wins(stores: list[VersionedDocuments]) -> None:
    for round_ in range(ROUNDS):
        document_id = f"lod_{round_}"
        await insert(stores[0], document_id, version=7)
        condition = WriteCondition(body_version=7)

        def write(
            writer: int, document_id: str = document_id, condition: WriteCondition = condition
        ) -> Awaitable[Any]:
            store = stores[writer % len(stores)]
            if writer % 3 == 0:
                return store.patch(MINE, document_id, {"by": writer}, version=7)
            if writer % 3 == 1:
                return store.replace(MINE, document_id, {"by": writer}, version=7)
            return store.change(MINE, document_id, lambda _: {"by": writer}, check_version=condition.check)

        counted = await outcomes([write(writer) for writer in range(WRITERS)])
        assert counted == {"ok": 1, "VersionConflictError": WRITERS - 1}
        assert (await stores[0].get(MINE, document_id))["version"] == 8


async def test_the_winner_is_the_one_that_was_told_so(stores: list[VersionedDocuments]) -> None:
    await insert(stores[0])
    calls = [stores[writer % 3].patch(MINE, "lod_1", {"by": writer}, version=1) for writer in range(WRITERS)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    (winner,) = [writer for writer, result in enumerate(results) if result == 2]
    assert (await stores[1].get(MINE, "lod_1"))["by"] == winner


async def test_changes_that_name_no_version_are_all_applied_one_after_another(
    stores: list[VersionedDocuments],
) -> None:
    await insert(stores[0])
    calls = [store.change(MINE, "lod_1", lambda load: {"n": load["n"] + 1}) for store in stores * 4]
    assert await outcomes(calls) == {"ok": 12}
    load = await stores[0].get(MINE, "lod_1")
    assert (load["n"], load["version"]) == (12, 13)


async def test_a_conflict_says_where_the_document_stands(loads: VersionedDocuments) -> None:
    await insert(loads, version=4)
    for write in (loads.patch, loads.replace):
        with pytest.raises(VersionConflictError) as conflict:
            await write(MINE, "lod_1", {"n": 1}, version=3)
        assert conflict.value.extra == {"current_version": 4}
        assert conflict.value.headers == {"ETag": '"4"'}


async def test_if_match_that_names_another_version_is_a_failed_precondition(
    loads: VersionedDocuments,
) -> None:
    await insert(loads, version=4)
    with pytest.raises(PreconditionFailedError) as refusal:
        await loads.change(
            MINE,
            "lod_1",
            lambda _: {"n": 1},
            check_version=WriteCondition(if_match=frozenset({3})).check,
        )
    assert refusal.value.extra == {"current_version": 4}
    _, after = await loads.change(
        MINE, "lod_1", lambda _: {"n": 1}, check_version=WriteCondition(if_match=frozenset({4})).check
    )
    assert after["version"] == 5


async def test_a_change_returns_what_is_stored_before_and_after(loads: VersionedDocuments) -> None:
    await insert(loads, keeps="this")
    before, after = await loads.change(MINE, "lod_1", lambda load: {"n": load["n"] + 5})
    assert (before["n"], before["version"]) == (0, 1)
    assert after == await loads.get(MINE, "lod_1")
    assert (after["n"], after["keeps"], after["version"]) == (5, "this", 2)


async def test_a_change_that_leaves_it_writes_nothing(loads: VersionedDocuments) -> None:
    await insert(loads)
    before, after = await loads.change(MINE, "lod_1", lambda _: None)
    assert before == after == await loads.get(MINE, "lod_1")
    assert after["version"] == 1


async def test_what_is_another_tenants_does_not_exist(loads: VersionedDocuments) -> None:
    await insert(loads)
    for call in (
        loads.get(OTHERS, "lod_1"),
        loads.patch(OTHERS, "lod_1", {"n": 9}, version=1),
        loads.replace(OTHERS, "lod_1", {"n": 9}, version=1),
        loads.change(OTHERS, "lod_1", lambda _: {"n": 9}),
        loads.patch(MINE, "lod_none", {"n": 9}, version=1),
    ):
        with pytest.raises(NotFoundError):
            await call
    assert (await loads.get(MINE, "lod_1"))["n"] == 0


async def test_a_scope_without_a_tenant_is_refused_before_the_store_is_asked(
    loads: VersionedDocuments,
) -> None:
    await insert(loads)
    with pytest.raises(KeyError):
        await loads.patch({"user_id": "usr_a"}, "lod_1", {"n": 9}, version=1)
    assert (await loads.get(MINE, "lod_1"))["n"] == 0


async def test_a_replacement_drops_what_it_lacks_but_stays_whose_it_was(loads: VersionedDocuments) -> None:
    await insert(loads, gone=True)
    version = await loads.replace(MINE, "lod_1", {"n": 2, "tenant_id": "ten_b", "_id": "lod_2"}, version=1)
    assert version == 2
    assert await loads.get(MINE, "lod_1") == {"_id": "lod_1", **MINE, "version": 2, "n": 2}


async def test_versions_are_given_to_what_lacks_them_and_to_nothing_else(kit: StateKit) -> None:
    rows = kit.mongo.collection("loads")
    old, new = full(5000, 1200), 50
    await rows.insert_many(
        [{"_id": f"old_{n}"} for n in range(old)] + [{"_id": f"new_{n}", "version": 9} for n in range(new)]
    )
    assert sum(await asyncio.gather(*(give_versions(kit.mongo, ("loads", "none")) for _ in range(3)))) == old
    assert await rows.count_documents({"version": 1}) == old
    assert await rows.count_documents({"version": 9}) == new
    assert await give_versions(kit.mongo, ("loads", "none")) == 0


async def test_a_version_that_a_writer_moves_meanwhile_is_not_set_back(kit: StateKit) -> None:
    rows = kit.mongo.collection("loads")
    ids = [f"old_{n}" for n in range(300)]
    await rows.insert_many([{"_id": each} for each in ids])

    async def write() -> None:
        for each in ids:
            await rows.update_one({"_id": each}, {"$inc": {"version": 5}})

    await asyncio.gather(give_versions(kit.mongo, ("loads",)), write())
    assert await rows.count_documents({"version": {"$gte": 5}}) == len(ids)
