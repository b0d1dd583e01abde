"""The queries of the address book.

Guarantees
- A user has one default at most: the unique index `one_default_a_user` says so, whoever writes.
- Taking the default from one entry and giving it to another is one transaction: a reader finds the one or
  the other, and a process that dies in between leaves what was there. It runs under the lock
  `address-default:{tenant}:{user}`, so that two who switch at once do so one after the other, and so that a
  dead one's transaction is ended within DEFAULT_LEASE_S by the next who switches or by a worker (`locks`).
- Every other write is compare-and-set on `version`.

When MongoDB is gone: StoreUnavailableError. Redis is not involved.

Document in `addresses`: {_id adr_…, tenant_id, user_id, label, contact_name, phone, line1, line2, city,
region, postal_code, country, location {lat, lon} or null, is_default, version, created_at, updated_at}; its
indexes are in `state.feature_indexes`. Reads and writes O(1), a page O(page) by index. An ordinary change is
a read and an update; a switch of the default takes eight calls.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final

from app.core.errors import VersionConflictError
from app.core.ids import new_id
from app.core.moments import to_the_millisecond
from app.state.documents import VersionedDocuments
from app.state.keyed import Keyed
from app.state.kit import StateKit
from app.state.mongo import ClientSession, Document, one_page
from app.state.patience import Patience
from app.state.session_documents import Owner
from app.state.versions import VersionCheck, any_version

DEFAULT_LEASE_S: Final = 3.0
DEFAULT_WAIT_S: Final = 4.0
"""Longer than the lease: whoever comes after a dead one gets through."""

Decide = Callable[[Document], Awaitable[Document]]
"""Given the entry as it is, returns the fields to set. Asked again when somebody else wrote in between."""


class _Outrun(Exception):  # noqa: N818  # a signal out of a transaction, never seen outside
    """The entry is not at the version that was read."""


class AddressStore:
    """The address books of all users. Cheap to make."""

    def __init__(self, kit: StateKit) -> None:
        """Take from the kit what it needs."""
        self._mongo = kit.mongo
        self._idempotency = kit.idempotency
        self._clock = kit.clock
        self._locks = kit.locks
        self._rows = kit.mongo.collection("addresses")
        self._documents = VersionedDocuments(kit.mongo, "addresses", clock=kit.clock)

    async def insert(self, owner: Owner, fields: Document, keyed: Keyed[Document] | None) -> Document:
        """Insert an entry and return it.

        Raises LockHeldError, StoreUnavailableError, and with a key what `Idempotency.run` raises.
        """
        now = self._now()
        document = {
            "_id": new_id("adr"),
            **owner.filter,
            **fields,
            "version": 1,
            "created_at": now,
            "updated_at": now,
        }

        async def insert(session: ClientSession) -> bool:
            async with self._mongo.guard("addresses.insert"):
                await self._rows.insert_one(document, session=session)
            return True

        if document["is_default"]:
            return await self._switch_default(owner, document, insert, keyed)
        await self._idempotency.write(keyed, insert, document)
        return document

    async def get(self, owner: Owner, address_id: str) -> Document:
        """Return the entry. Raises NotFoundError."""
        return await self._documents.get(owner.filter, address_id)

    async def page(self, owner: Owner, *, before: tuple[datetime, str] | None, limit: int) -> list[Document]:
        """Return up to `limit` entries, newest first, older than the one with this date and id."""
        async with self._mongo.guard("addresses.page"):
            rows = self._rows.aggregate(one_page(owner.filter, order=-1, after=before, limit=limit))
            return [row async for row in rows]

    async def change(
        self, owner: Owner, address_id: str, decide: Decide, *, check_version: VersionCheck = any_version
    ) -> Document:
        """Set what `decide` makes of the entry and return it as it is then.

        Raises NotFoundError, what `check_version` raises, VersionConflictError if others keep writing,
        LockHeldError if they keep switching the default.
        """
        patience = Patience(self._clock)
        while True:
            before = await self._documents.get(owner.filter, address_id)
            check_version(before["version"])
            changes = {**await decide(before), "updated_at": self._now()}
            try:
                if changes.get("is_default") and not before["is_default"]:
                    await self._give_default(owner, before, changes)
                else:
                    await self._documents.patch(owner.filter, address_id, changes, version=before["version"])
            except (VersionConflictError, _Outrun):
                if not await patience.wait():
                    raise VersionConflictError(current_version=before["version"]) from None
                continue
            return {**before, **changes, "version": before["version"] + 1}

    async def delete(self, owner: Owner, address_id: str, check_version: VersionCheck) -> None:
        """Delete the entry. Raises NotFoundError, what `check_version` raises, VersionConflictError."""
        patience = Patience(self._clock)
        while True:
            before = await self._documents.get(owner.filter, address_id)
            check_version(before["version"])
            async with self._mongo.guard("addresses.delete"):
                result = await self._rows.delete_one(
                    {"_id": address_id, **owner.filter, "version": before["version"]}
                )
            if result.deleted_count == 1:
                return
            if not await patience.wait():
                raise VersionConflictError(current_version=before["version"])

    async def _give_default(self, owner: Owner, before: Document, changes: Document) -> None:
        async def update(session: ClientSession) -> bool:
            result = await self._rows.update_one(
                {"_id": before["_id"], **owner.filter, "version": before["version"]},
                {"$set": changes, "$inc": {"version": 1}},
                session=session,
            )
            return result.matched_count == 1

        await self._switch_default(owner, before, update, None)

    async def _switch_default(
        self,
        owner: Owner,
        entry: Document,
        give: Callable[[ClientSession], Awaitable[bool]],
        keyed: Keyed[Document] | None,
    ) -> Document:
        """Take the default from whichever entry has it and `give` it to this one: both or neither.

        Raises _Outrun if it could not be given.
        """
        now = self._now()

        async def switch(session: ClientSession) -> Document:
            await self._rows.update_one(
                {**owner.filter, "is_default": True, "_id": {"$ne": entry["_id"]}},
                {"$set": {"is_default": False, "updated_at": now}, "$inc": {"version": 1}},
                session=session,
            )
            if not await give(session):
                raise _Outrun
            return entry

        name = f"address-default:{owner.tenant_id}:{owner.user_id}"
        async with self._locks.hold(name, lease_s=DEFAULT_LEASE_S, wait_s=DEFAULT_WAIT_S) as lock:
            return await self._idempotency.run(keyed, switch, transaction=lock.write)

    def _now(self) -> datetime:
        return to_the_millisecond(self._clock.now())
