"""Loans that are paid out while replicas and the worker are killed and the gateway loses its answers: each is
paid once, or says what is pending until it is.
"""

import asyncio
import random
import secrets
import signal
from collections import Counter
from typing import Any

import pytest

from tests.cluster.counts import full, show
from tests.cluster.wire import Broken
from tests.cluster.world import (
    API,
    WHOLE_TIMEOUT_S,
    Person,
    World,
    employ,
    expect,
    in_parallel,
    until,
)
from tests.gateway_server import Behaviour, GatewayServer

LOANS = full(100, 10)
CLIENTS_A_LOAN = 3
KILLS = full(20, 2)
SPREAD_S = full(80, 2)
"""Over which the clients come."""
FROZEN_S = full(12, 0)
"""Longer than the lease of a loan's lock: in a full run every fourth is frozen instead of killed."""
AMOUNT = {"amount_minor": 123_400, "currency": "EUR"}
BEHAVIOURS: tuple[Behaviour, ...] = ("pay", "pay", "lose", "lose", "fail", "pending", "silent", "rubbish")
TO_BE_REPEATED = {"lock_held", "lock_lost", "conflict", "idempotency_in_flight"}
CHANCE = random.Random()  # noqa: S311  # it hides nothing


async def approved(world: World, applicant: Person, underwriter: Person) -> str:
    """Have a loan approved and return its id."""
    body = {"company_name": secrets.token_hex(8), "requested_amount": AMOUNT, "terms_days": 30}
    headers = {"Idempotency-Key": secrets.token_hex()}
    details: dict[str, Any] = {"token": applicant.token, "body": body, "headers": headers}
    made = expect(201, await world.persist("POST", f"{API}/applications", **details))
    for status in ("in_review", "approved"):
        body = {"status": status, "version": made["version"]}
        path = f"{API}/applications/{made['id']}"
        made = expect(200, await world.nginx.ask("PUT", path, token=underwriter.token, body=body))
    return str(made["id"])


class Payers:
    """Ask for loans to be paid until they are answered, as careful clients would; count what came."""

    def __init__(self, world: World, underwriter: Person) -> None:
        self._world = world
        self._underwriter = underwriter
        self.seen: Counter[str] = Counter()

    async def pay(self, loan: str, key: str) -> None:
        await asyncio.sleep(CHANCE.uniform(0, SPREAD_S))
        while True:
            try:
                reply = await self._world.anywhere().ask(
                    "POST",
                    f"{API}/applications/{loan}/disburse",
                    token=self._underwriter.token,
                    body={"amount": AMOUNT},
                    headers={"Idempotency-Key": key},
                )
            except Broken:
                self.seen["cut off"] += 1
            else:
                self.seen[reply.code or str(reply.status)] += 1
                if reply.status in {201, 202} or reply.code == "invalid_transition":
                    return
                assert reply.code in TO_BE_REPEATED or reply.status >= 500, str(reply)
            await asyncio.sleep(0.1)

    async def state(self, loan: str) -> str:
        path = f"{API}/applications/{loan}/disbursement"
        reply = await self._world.persist("GET", path, token=self._underwriter.token)
        return "none" if reply.status == 404 else str(expect(200, reply)["state"])


async def kill_one_by_one(world: World, paying: asyncio.Task[Any]) -> int:
    """Kill or freeze replicas, and kill the worker once, while there is somebody who wants to be paid."""
    kills = 0
    while kills < KILLS and not paying.done():
        if kills == 1:
            await asyncio.to_thread(world.cluster.kill, "worker-1")
        elif FROZEN_S and kills % 4 == 3:
            async with world.frozen(CHANCE.choice(sorted(world.replicas))):
                await asyncio.sleep(FROZEN_S)
        else:
            name = CHANCE.choice(sorted(world.replicas))
            await world.send(name, signal.SIGKILL)
            await world.is_gone(name)
            await world.is_back(name)
        kills += 1
    return kills


@pytest.mark.timeout(1800)
async def test_loans_are_paid_once_though_replicas_die_and_the_gateway_loses_answers(
    world: World, gateway: GatewayServer
) -> None:
    applicant = await world.person()
    underwriter = await employ(world, applicant, "underwriter")
    loans = await in_parallel((approved(world, applicant, underwriter) for _ in range(LOANS)), at_once=4)
    gateway.behaviour = lambda _: CHANCE.choice(BEHAVIOURS)
    gateway.pause_s = lambda: CHANCE.uniform(0, 0.6)
    payers = Payers(world, underwriter)
    keys = {loan: secrets.token_hex() for loan in loans}
    asks = [
        payers.pay(loan, keys[loan] if n else secrets.token_hex())
        for loan in loans
        for n in range(CLIENTS_A_LOAN)
    ]
    async with asyncio.timeout(full(1200, 2 * WHOLE_TIMEOUT_S)):
        paying = asyncio.create_task(in_parallel(asks, at_once=len(asks)))
        kills = await kill_one_by_one(world, paying)
        await paying
    waiting = Counter([await payers.state(loan) for loan in loans])
    assert set(waiting) <= {"pending", "paid"}
    gateway.behaviour = lambda _: "pay"

    async def all_paid() -> bool:
        return {await payers.state(loan) for loan in loans} == {"paid"}

    resolved_s = await until(all_paid, timeout_s=120, poll_s=0.5)
    show(
        f"{LOANS} loans, {len(asks)} clients, {kills} kills, {gateway.asked} orders: {dict(payers.seen)}; "
        f"{dict(waiting)} when the last client was answered, all paid {resolved_s:.1f} s later"
    )
    assert sorted(gateway.paid) == sorted(loans)
    assert all(row["amount_minor"] == AMOUNT["amount_minor"] for row in gateway.paid.values())
    payees = Counter(row["payee"] for row in gateway.paid.values())
    assert set(payees.values()) == {1}
    await everything_followed(world, underwriter, loans)


async def everything_followed(world: World, underwriter: Person, loans: list[str]) -> None:
    async with world.mongo() as database:
        payouts = [f"payout:{loan}" for loan in loans]
        rows = list(database["ledger_transfers"].find({"_id": {"$in": payouts}}))
        applications = list(database["applications"].find({"_id": {"$in": loans}}))
        claims = [row["claim"] for row in database["disbursements"].find({"_id": {"$in": loans}})]
        keyed = [row["status"] for row in database["idempotency_keys"].find({"_id": {"$in": claims}})]
    assert len(rows) == len(loans)
    for row in applications:
        assert [event["status"] for event in row["history"]] == [
            *("pending", "in_review", "approved", "disbursing", "disbursed")
        ]
    assert keyed == [201] * len(loans), "whoever repeats their request is told how it ended"
    report: dict[str, Any] = {}

    async def sealed() -> bool:
        reply = await world.persist("GET", f"{API}/ledger/verify", token=underwriter.token)
        report.update(expect(200, reply))
        return bool(report["unsealed"] == 0)

    await until(sealed, timeout_s=30)
    assert (report["ok"], report["complete"], report["entries"]) == (True, True, 2 * len(loans)), report
