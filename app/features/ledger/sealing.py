"""Sealing: transfers that were committed get their places in the tenant's chain, soon after.

Transfers don't wait for each other: a chain whose head every one of them must write would let one at a time
through. They commit unsealed, and one kind of job, `ledger.seal`, appends what there is to the chain.

Guarantees
- A transfer that was committed is in the chain within about 2 s, 5 s at the most, while a worker lives.
  Should the one that seals die or freeze, its lease (LEASE_S) and the rescue come on top.
- A chain never forks and no transfer is in it twice: the seals of a batch and the move of the head, by
  compare-and-set, are one transaction; (chain, seq) is unique. Of two who seal at once, one commits, and one
  who was killed or frozen midway commits nothing: its session is ended (`processes`).

Does not guarantee an order of entries beyond that of sealing: those of one batch are sorted by date, which is
of the replica that recorded them.

Who enqueues it: every worker looks each LOOK_S for tenants with something unsealed, by a sparse index that
holds nothing else, and enqueues a job a tenant, under a key. So a transfer costs nothing more than itself, an
idle system a read of an empty index and not one job, and a busy tenant a job each LOOK_S at most. See
decision 15 for what else was thought of.

Document in `ledger_chains`: {_id tenant_id, seq, hash, sealed_at}. Cost: a transaction for BATCH entries, of
two reads, an update an entry and one of the head. MongoDB gone: sealed later.
"""

import asyncio
import logging
from contextlib import suppress
from functools import partial
from typing import Final

from pymongo import UpdateOne
from pymongo.errors import DuplicateKeyError, PyMongoError

from app.core.errors import ConflictError, StoreUnavailableError
from app.core.moments import to_the_millisecond
from app.features.ledger.ledger import TRANSFERS
from app.features.ledger.seals import Head, sealed
from app.state.job_documents import NewJob
from app.state.kit import StateKit
from app.state.mongo import ClientSession, Document

_log = logging.getLogger(__name__)

CHAINS: Final = "ledger_chains"
SEAL: Final = "ledger.seal"
LOOK_S = 1.5
LEASE_S: Final = 5.0
BATCH = 100
_LOOKED_AT: Final = 1_000
_BATCHES_MAX: Final = 100
"""Of one job, so that it ends; what is left is the next one's."""


class _OvertakenError(ConflictError):
    """Somebody else has sealed what this one was about to."""


async def look_forever(kit: StateKit) -> None:
    """Every LOOK_S, have sealed what is unsealed. Runs in a worker's tasks."""
    while True:
        try:
            await look(kit)
        except StoreUnavailableError:
            pass
        except PyMongoError as error:
            _log.error("ledger_not_looked_at", extra={"reason": str(error)})
        await asyncio.sleep(LOOK_S)


async def look(kit: StateKit) -> int:
    """Enqueue a job for each tenant with something unsealed, and return how many there are.

    Raises StoreUnavailableError.
    """
    any_chain = {"unsealed.chain": {"$gt": ""}}
    async with kit.mongo.guard("ledger.find_unsealed"):
        found = kit.mongo.collection(TRANSFERS).find(any_chain, {"unsealed.chain": 1})
        tenants = {row["unsealed"]["chain"] async for row in found.limit(_LOOKED_AT)}
    for tenant_id in tenants:
        await kit.jobs.enqueue(NewJob(SEAL, {"tenant_id": tenant_id}, tenant_id=tenant_id, key="chain"))
    return len(tenants)


async def seal(kit: StateKit, tenant_id: str) -> int:
    """Seal what a tenant has unsealed and return how much that was. Raises as `Transactions.run` does."""
    await _begin_chain(kit, tenant_id)
    count = 0
    for _ in range(_BATCHES_MAX):
        try:
            sealed_now = await kit.transactions.run(partial(_seal_batch, kit, tenant_id))
        except _OvertakenError:
            break  # they go on with it
        count += sealed_now
        if sealed_now < BATCH:
            break
    return count


async def head_of(kit: StateKit, tenant_id: str, session: ClientSession = None) -> Head:
    """Return the end of a tenant's chain, as the transaction sees it if there is one."""
    row = await kit.mongo.collection(CHAINS).find_one({"_id": tenant_id}, session=session)
    return Head.genesis(tenant_id) if row is None else Head(row["seq"], row["hash"])


async def _begin_chain(kit: StateKit, tenant_id: str) -> None:
    """Have a chain to append to. Not in the transaction, which would make the collection as well."""
    chains = kit.mongo.collection(CHAINS)
    async with kit.mongo.guard("ledger_chains.find"):
        row = await chains.find_one({"_id": tenant_id}, {"_id": 1})
    if row is None:
        genesis = Head.genesis(tenant_id)
        new = {"_id": tenant_id, "seq": genesis.seq, "hash": genesis.hash, "sealed_at": None}
        with suppress(DuplicateKeyError):
            async with kit.mongo.guard("ledger_chains.insert"):
                await chains.insert_one(new)


async def _seal_batch(kit: StateKit, tenant_id: str, session: ClientSession) -> int:
    transfers, chains = kit.mongo.collection(TRANSFERS), kit.mongo.collection(CHAINS)
    before = head = await head_of(kit, tenant_id, session)
    found = transfers.find({"unsealed.chain": tenant_id}, session=session)
    rows = await found.sort([("unsealed.since", 1), ("_id", 1)]).limit(BATCH).to_list(None)
    if not rows:
        return 0
    now = to_the_millisecond(kit.clock.now())
    updates: list[UpdateOne] = []
    for transfer in rows:
        seal_of_it, head = sealed(transfer, head, chain=tenant_id, at=now)
        unsealed = {"_id": transfer["_id"], "unsealed.chain": tenant_id}
        updates.append(UpdateOne(unsealed, {"$set": {"seal": seal_of_it}, "$unset": {"unsealed": ""}}))
    result = await transfers.bulk_write(updates, session=session)
    as_read = {"_id": tenant_id, "seq": before.seq, "hash": before.hash}
    new: Document = {"seq": head.seq, "hash": head.hash, "sealed_at": now}
    moved = await chains.update_one(as_read, {"$set": new}, session=session)
    if moved.matched_count != 1 or result.matched_count != len(rows):
        raise _OvertakenError("The chain has grown meanwhile.")
    return len(rows)
