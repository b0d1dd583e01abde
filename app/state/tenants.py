"""Tenants: the companies that operate on the platform, and the settings all their users share.

Guarantees: a change is compare-and-set on the version it read, so of two that name one version, one wins.
Reads are by the caller's own tenant id alone.

A registration that is killed between inserting its tenant and its first user leaves a tenant without users.
Nobody can see it and nothing refers to it.

Document in `tenants`: {_id ten_…, name, currency, time_zone, version, roster, leaving, created_at,
updated_at}; `roster` and `leaving` belong to `state.last_admin` and don't move `version`.

When MongoDB is gone: StoreUnavailableError. Redis is not involved.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self, TypedDict

from app.core.clock import Clock
from app.core.errors import NotFoundError, VersionConflictError
from app.core.ids import new_id
from app.core.moments import to_the_millisecond
from app.state.mongo import Document, MongoStore
from app.state.patience import Patience
from app.state.versions import VersionCheck, any_version


class TenantChanges(TypedDict, total=False):
    """What may be changed about a tenant."""

    name: str
    currency: str
    time_zone: str


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant as stored."""

    id: str
    name: str
    currency: str
    time_zone: str
    version: int
    created_at: datetime
    updated_at: datetime

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Read a document of `tenants`."""
        names = ("name", "currency", "time_zone", "version", "created_at", "updated_at")
        return cls(id=document["_id"], **{name: document[name] for name in names})


class Tenants:
    """Reads and writes tenants. One a process."""

    def __init__(self, *, mongo: MongoStore, clock: Clock) -> None:
        """`clock` dates what is inserted."""
        self._mongo = mongo
        self._clock = clock
        self._tenants = mongo.collection("tenants")

    async def create(self, *, name: str) -> Tenant:
        """Insert a tenant that reckons in euros and UTC until its admin says otherwise."""
        now = to_the_millisecond(self._clock.now())
        document: Document = {
            "_id": new_id("ten"),
            "name": name,
            "currency": "EUR",
            "time_zone": "UTC",
            "version": 1,
            "roster": 1,
            "leaving": [],
            "created_at": now,
            "updated_at": now,
        }
        async with self._mongo.guard("tenants.insert"):
            await self._tenants.insert_one(document)
        return Tenant.from_document(document)

    async def remove_unused(self, tenant_id: str) -> None:
        """Remove a tenant that never got a user."""
        async with self._mongo.guard("tenants.delete"):
            await self._tenants.delete_one({"_id": tenant_id})

    async def get(self, tenant_id: str) -> Tenant:
        """Return the tenant. Raises NotFoundError."""
        async with self._mongo.guard("tenants.find"):
            document = await self._tenants.find_one({"_id": tenant_id})
        if document is None:
            raise NotFoundError
        return Tenant.from_document(document)

    async def change(
        self, tenant_id: str, changes: TenantChanges, *, check_version: VersionCheck = any_version
    ) -> Tenant:
        """Apply `changes` and return the tenant; nothing is written if nothing differs.

        Raises NotFoundError, what `check_version` raises about the version that is written over,
        VersionConflictError if others keep writing.
        """
        patience = Patience(self._clock)
        while True:
            before = await self.get(tenant_id)
            check_version(before.version)
            differing = {key: value for key, value in changes.items() if getattr(before, key) != value}
            if not differing:
                return before
            changed: dict[str, Any] = {**differing, "updated_at": to_the_millisecond(self._clock.now())}
            async with self._mongo.guard("tenants.update"):
                result = await self._tenants.update_one(
                    {"_id": tenant_id, "version": before.version}, {"$set": changed, "$inc": {"version": 1}}
                )
            if result.matched_count == 1:
                return replace(before, **changed, version=before.version + 1)
            if not await patience.wait():
                raise VersionConflictError(current_version=before.version)
