"""Money that is moved while those who move and seal it are killed and frozen: it adds up at every moment."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.core.settings import Settings
from app.features.ledger import sealing, service, verification
from app.features.ledger.verification import verify
from app.state.kit import StateKit
from app.state.mongo import ClientSession
from tests.cluster.counts import full, show
from tests.cluster.ledger_client import ACCOUNTS, CLIENTS, owner
from tests.features.ledger.money import TENANT
from tests.state.working import WorkerProcess, killed_one_by_one, worker_processes

pytestmark = pytest.mark.settings(mongo_timeout_s=20)  # of the test itself, which reads whole collections

PROCESSES = 4
LASTS_S = full(300, 8)
KILL_EVERY_S = full(5, 2)
FREEZE_EVERY_S = full(7, 3)
FROZEN_S = (0.3, 3.0)
CHANCE = random.Random()  # noqa: S311  # it hides nothing


@asynccontextmanager
async def frozen_one_by_one(workers: list[WorkerProcess]) -> AsyncIterator[list[str]]:
    """Freeze one of them, by lot, every so often, for a moment or for longer than its leases."""
    frozen: list[str] = []

    async def freeze() -> None:
        while True:
            await asyncio.sleep(FREEZE_EVERY_S)
            worker = CHANCE.choice(workers)
            if worker.alive:
                process = worker.process
                process.send_signal(signal.SIGSTOP)
                frozen.append(worker.name)
                await asyncio.sleep(CHANCE.uniform(*FROZEN_S))
                if process.returncode is None:
                    process.send_signal(signal.SIGCONT)

    async with asyncio.TaskGroup() as tasks:
        freezing = tasks.create_task(freeze())
        yield frozen
        freezing.cancel()


async def look(kit: StateKit) -> int:
    """Read every account as of one moment: nothing has come in or gone, and no limit is passed."""

    async def work(session: ClientSession) -> list[dict[str, Any]]:
        rows = kit.mongo.collection("ledger_accounts").find({"tenant_id": TENANT}, session=session)
        return [row async for row in rows]

    rows = await kit.transactions.run(work)
    assert sum(row["balance_minor"] for row in rows) == 0
    for row in rows:
        if row["limit_minor"] is not None:
            used = row["balance_minor"] + row["held_minor"]
            assert used <= row["limit_minor"], row
            assert row["remaining_minor"] == row["limit_minor"] - used, row
            assert row["held_minor"] >= 0, row
    return len(rows)


async def seal_the_rest(kit: StateKit) -> None:
    unsealed = {"unsealed.chain": TENANT}
    async with asyncio.timeout(60):
        while await kit.mongo.collection("ledger_transfers").find_one(unsealed):
            await sealing.seal(kit, TENANT)


@pytest.mark.timeout(900)
async def test_the_sum_is_constant_no_limit_is_passed_and_the_chain_holds_though_clients_die(
    kit: StateKit, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(ACCOUNTS):
        await service.grant(kit, owner(number))
    transfers = kit.mongo.collection("ledger_transfers")
    looks = verified = 0
    module = "tests.cluster.ledger_client"
    async with (
        worker_processes(settings, PROCESSES, module=module) as workers,
        killed_one_by_one(workers, every_s=KILL_EVERY_S) as killed,
        frozen_one_by_one(workers) as frozen,
    ):
        ends_s = kit.clock.monotonic_s() + LASTS_S
        while kit.clock.monotonic_s() < ends_s:
            assert await look(kit) == ACCOUNTS * 2 + 2
            looks += 1
            if looks % 10 == 0:
                report = await verify(kit, TENANT)
                assert report.ok, report.first_bad
                verified += 1
            await asyncio.sleep(0.05)
    await seal_the_rest(kit)
    await look(kit)
    monkeypatch.setattr(verification, "BUDGET_S", 300.0)
    report = await verify(kit, TENANT)
    assert (report.ok, report.complete, report.unsealed) == (True, True, 0), report.first_bad
    count = await transfers.count_documents({})
    show(
        f"{count} transfers by {PROCESSES * CLIENTS} clients in {LASTS_S} s, {len(killed)} kills, "
        f"{len(frozen)} freezes, {looks} looks, verified {verified} times meanwhile"
    )
    assert report.entries == count
    assert killed
    assert frozen
    await _one_changed_byte_is_located(kit, report.entries)


async def _one_changed_byte_is_located(kit: StateKit, entries: int) -> None:
    transfers = kit.mongo.collection("ledger_transfers")
    seq = CHANCE.randint(1, entries)
    row = await transfers.find_one({"seal.chain": TENANT, "seal.seq": seq})
    assert row is not None
    other = chr(ord(row["subject_id"][-1]) ^ 1)
    await transfers.update_one({"_id": row["_id"]}, {"$set": {"subject_id": row["subject_id"][:-1] + other}})
    report = await verify(kit, TENANT)
    assert report.first_bad is not None
    found = (report.first_bad.why, report.first_bad.seq, report.first_bad.id)
    assert found == ("content_changed", seq, row["_id"])
