"""Bookings on credit while replicas are killed: each that is there is held once, and ends once."""

import asyncio
import random
import secrets
import signal
from collections import Counter
from typing import Any

import pytest

from tests.cluster.counts import full, show
from tests.cluster.test_submits_outlive_replicas import form
from tests.cluster.world import API, Person, World, employ, expect, until

KILLS = full(20, 1)
CLIENTS = 8
CREDIT_MINOR = full(50_000_000, 5_000_000)
"""For some dozens of these bookings, so that there is not always enough."""
CHANCE = random.Random()  # noqa: S311  # it hides nothing


async def credit(world: World, customer: Person, admin: Person) -> None:
    """Have a customer granted credit, and return when it is there."""
    money = {"amount_minor": CREDIT_MINOR, "currency": "EUR"}
    body: dict[str, Any] = {"company_name": "Marek", "requested_amount": money, "terms_days": 30}
    made = expect(201, await world.nginx.ask("POST", f"{API}/applications", token=customer.token, body=body))
    for status in ("in_review", "approved"):
        body = {"status": status, "version": made["version"]}
        path = f"{API}/applications/{made['id']}"
        made = expect(200, await world.nginx.ask("PUT", path, token=admin.token, body=body))

    async def granted() -> bool:
        reply = await world.nginx.ask("GET", f"{API}/ledger/accounts?kind=credit", token=customer.token)
        return [item["limit"]["amount_minor"] for item in expect(200, reply)["items"]] == [CREDIT_MINOR]

    await until(granted)


class Customer:
    """Books on credit and calls most of it off again, whatever dies."""

    def __init__(self, world: World, customer: Person, admin: Person) -> None:
        self._world = world
        self._token = customer.token
        self._admin = admin.token
        self.seen: Counter[str] = Counter()
        self.booked: set[str] = set()
        self._left: list[str] = []

    async def book_until(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            body = {**form(secrets.token_hex(8)), "payment": "credit"}
            headers = {"Idempotency-Key": secrets.token_hex()}
            details: dict[str, Any] = {"token": self._token, "body": body, "headers": headers}
            reply = await self._world.persist("POST", f"{API}/bookings", **details)
            self.seen[reply.code or str(reply.status)] += 1
            if reply.status == 201:
                booking_id = reply.json()["id"]
                self.booked.add(booking_id)
                await self._end(booking_id)
            elif reply.code == "validation_failed" and self._left:
                await self._cancel(self._left.pop())
            else:
                assert reply.status == 422 or reply.code in {"conflict", "idempotency_in_flight"}, str(reply)

    async def _end(self, booking_id: str) -> None:
        """Cancel most, deliver some, leave a few; what nobody answered may have happened."""
        what = CHANCE.choice(("cancel", "cancel", "cancel", "cancel", "deliver", "leave", "leave"))
        if what == "cancel":
            await self._cancel(booking_id)
        elif what == "leave":
            self._left.append(booking_id)
        else:
            path = f"{API}/bookings/{booking_id}/status"
            for status in ("assigned", "picked_up", "in_transit", "delivered"):
                await self._world.persist("POST", path, token=self._admin, body={"status": status})

    async def _cancel(self, booking_id: str) -> None:
        await self._world.persist("POST", f"{API}/bookings/{booking_id}/cancel", token=self._token)


@pytest.mark.timeout(1200)
async def test_bookings_on_credit_are_held_posted_and_let_go_once_though_replicas_die(
    world: World,
) -> None:
    admin = await world.person()
    person = await employ(world, admin, "shipper")
    await credit(world, person, admin)
    customer = Customer(world, person, admin)
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(CLIENTS):
            tasks.create_task(customer.book_until(stop))
        for _ in range(KILLS):
            name = CHANCE.choice(sorted(world.replicas))
            before = len(customer.booked)

            async def booked_some(before: int = before) -> bool:
                return len(customer.booked) > before

            await until(booked_some, timeout_s=60)
            await world.send(name, signal.SIGKILL)
            await world.is_gone(name)
            await world.is_back(name)
        stop.set()
    await everything_adds_up(world, person, admin, customer)


async def everything_adds_up(world: World, person: Person, admin: Person, customer: Customer) -> None:
    async with world.mongo() as database:
        bookings = list(database["bookings"].find({"user_id": person.id}))
        transfers = [row["_id"] for row in database["ledger_transfers"].find({"user_id": person.id})]
    on_credit = {row["_id"]: row for row in bookings if row["payment"] == "credit"}
    ends = {"cancelled": "void", "delivered": "post"}
    statuses = Counter(row["status"] for row in on_credit.values())
    show(f"{len(on_credit)} bookings on credit, {KILLS} kills: {dict(customer.seen)}; {dict(statuses)}")
    assert customer.booked <= set(on_credit)
    wanted = [f"hold:{booking_id}" for booking_id in on_credit]
    wanted += [f"{ends[row['status']]}:{row['_id']}" for row in on_credit.values() if row["status"] in ends]
    assert sorted(found for found in transfers if not found.startswith("grant:")) == sorted(wanted)
    under_way = [row for row in on_credit.values() if row["status"] not in ends]
    reply = await world.persist("GET", f"{API}/ledger/accounts?kind=credit", token=person.token)
    (line,) = expect(200, reply)["items"]
    assert line["held"]["amount_minor"] == sum(row["price"]["amount_minor"] for row in under_way)
    assert line["balance"]["amount_minor"] == sum(
        row["price"]["amount_minor"] for row in on_credit.values() if row["status"] == "delivered"
    )
    assert line["remaining"]["amount_minor"] >= 0
    reply = await world.persist("GET", f"{API}/ledger/verify", token=admin.token)
    report = expect(200, reply)
    assert (report["ok"], report["complete"]) == (True, True), report
