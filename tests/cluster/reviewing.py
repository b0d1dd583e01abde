"""An operator whose applications are reviewed by a crowd, and the account of what became of them."""

import contextlib
import secrets
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any

from app.cluster.layout import Layout
from app.core.settings import Settings
from app.state.kit import StateKit, open_kit
from app.state.logins import Device
from tests.cluster.world import API, Person, World, expect, in_parallel, until

_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Office:
    """A company: who applies, and the tokens of those who review."""

    applicant: Person
    reviewers: list[str]


async def open_office(world: World, *, reviewers: int) -> Office:
    """Make a company with that many underwriters who are logged in; made in the store, to save hashing."""
    applicant = await world.person()
    async with _kit(world) as kit:

        async def hire(number: int) -> str:
            account = await kit.accounts.create(
                tenant_id=applicant.tenant_id,
                email=f"{secrets.token_hex(8)}@cargoflow.example",
                name=f"Reviewer {number}",
                role="underwriter",
                password_hash="none",
            )
            login, _ = await kit.logins.start(account, Device("pytest", "127.0.0.1"))
            return kit.tokens.mint(
                login_id=login.id,
                user_id=account.id,
                tenant_id=account.tenant_id,
                issued_at=kit.clock.now(),
            )

        tokens = await in_parallel((hire(number) for number in range(reviewers)), at_once=_AT_ONCE)
    return Office(applicant, tokens)


async def apply_for(world: World, office: Office, count: int) -> list[str]:
    """Make that many applications and return their ids."""
    body = {
        "company_name": "Marek GmbH",
        "requested_amount": {"amount_minor": 5_000_000, "currency": "EUR"},
        "terms_days": 30,
    }

    async def one() -> str:
        headers = {"Idempotency-Key": secrets.token_hex()}
        details = {"token": office.applicant.token, "body": body, "headers": headers}
        application_id: str = expect(201, await world.persist("POST", f"{API}/applications", **details))["id"]
        return application_id

    return await in_parallel((one() for _ in range(count)), at_once=_AT_ONCE)


async def stored(world: World, application_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return what MongoDB itself holds of these, each of which must be whole: an event for every version."""
    async with world.mongo() as database:
        rows = list(database["applications"].find({"_id": {"$in": list(application_ids)}}))
    for row in rows:
        versions = [event["version"] for event in row["history"]]
        assert versions == list(range(1, row["version"] + 1)), row["_id"]
        assert row["status"] == row["history"][-1]["status"], row["_id"]
        assert len({event["id"] for event in row["history"]}) == row["version"], row["_id"]
    return {row["_id"]: row for row in rows}


@contextlib.asynccontextmanager
async def _kit(world: World) -> AsyncIterator[StateKit]:
    stores = (await world.status())["stores"]
    settings = Settings(
        mongodb_uri=stores["mongo"]["uri"],
        redis_url=stores["redis"]["url"],
        jwt_secret=Layout(world.cluster.data).secret("jwt"),
        replica_name="pytest",
    )
    async with open_kit(settings) as kit:

        async def reached() -> bool:
            return kit.mongo.health.status == kit.redis.health.status == "pass"

        await until(reached)
        yield kit
