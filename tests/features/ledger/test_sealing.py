"""Transfers get their places in the chain: soon, in no two, and by one sealer at a time."""

import asyncio

from app.features.ledger import sealing, service
from app.features.ledger.jobs import handlers
from app.features.ledger.verification import verify
from app.state.kit import StateKit
from tests.features.ledger.money import TENANT, claim, hold
from tests.state.working import working


async def record(kit: StateKit, count: int) -> None:
    await service.grant(kit, claim(1_000_000, subject_id="app_a"))
    for _ in range(count):
        await hold(kit, claim(1))


async def chain(kit: StateKit) -> list[int]:
    rows = kit.mongo.collection("ledger_transfers").find({"seal.chain": TENANT})
    return sorted([row["seal"]["seq"] async for row in rows])


async def unsealed(kit: StateKit) -> int:
    return int(await kit.mongo.collection("ledger_transfers").count_documents({"unsealed.chain": TENANT}))


async def test_what_was_recorded_is_sealed_in_the_order_of_its_dates(kit: StateKit) -> None:
    await record(kit, 3)
    assert await sealing.seal(kit, TENANT) == 4
    assert await chain(kit) == [1, 2, 3, 4]
    rows = await kit.mongo.collection("ledger_transfers").find({}).sort("seal.seq", 1).to_list(None)
    assert [row["created_at"] for row in rows] == sorted(row["created_at"] for row in rows)
    assert await sealing.seal(kit, TENANT) == 0


async def test_sealers_at_the_same_moment_make_one_chain(kit: StateKit, other_kit: StateKit) -> None:
    await record(kit, 15)
    sealing.BATCH, batch = 4, sealing.BATCH
    try:
        async with asyncio.timeout(30):
            while await unsealed(kit):
                sealers = (sealing.seal(one, TENANT) for one in (kit, other_kit) * 3)
                await asyncio.gather(*sealers, return_exceptions=True)
    finally:
        sealing.BATCH = batch
    assert await chain(kit) == list(range(1, 17))
    report = await verify(kit, TENANT)
    assert (report.ok, report.complete, report.entries, report.unsealed) == (True, True, 16, 0)


async def test_a_worker_seals_what_is_there_and_an_idle_one_has_no_jobs(kit: StateKit) -> None:
    jobs = kit.mongo.collection("jobs")
    assert await sealing.look(kit) == 0
    await record(kit, 2)
    assert await sealing.look(kit) == await sealing.look(kit) == 1
    assert await jobs.count_documents({}) == 1
    async with working(kit, *handlers(kit)):
        async with asyncio.timeout(20):
            while await unsealed(kit):  # noqa: ASYNC110  # a store
                await asyncio.sleep(0.02)
    assert await sealing.look(kit) == 0
    assert await jobs.count_documents({}) == 1


async def test_every_tenant_has_a_chain_of_its_own(kit: StateKit) -> None:
    for tenant_id in ("ten_a", "ten_b"):
        await service.grant(kit, claim(5, tenant_id=tenant_id, subject_id=f"app_{tenant_id}"))
    assert await sealing.look(kit) == 2
    assert [await sealing.seal(kit, tenant_id) for tenant_id in ("ten_a", "ten_b")] == [1, 1]
    reports = [await verify(kit, tenant_id) for tenant_id in ("ten_a", "ten_b")]
    assert [(report.ok, report.entries) for report in reports] == [(True, 1)] * 2
    assert reports[0].head_hash != reports[1].head_hash
