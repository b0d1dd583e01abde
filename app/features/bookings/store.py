"""The queries of bookings.

Guarantees
- One insert makes a booking: the document carries its first event, what is to follow (`outbox`) and the key
  of the request (`idempotency`), so that it is there with all of them or not at all.
- A number is a tenant's only once, and a draft becomes one booking at most: unique indexes.
- A change is compare-and-set on `version`; its event is in the same update.
- What a booking on credit does to the credit line is in the same transaction (`payments`); a prepaid one
  costs no store call for that.
- Tenant and, unless staff ask, owner are in every filter (`scope_of`).
- Whoever changes a booking ends the cached lists it may be in (`cached`).

What an index serves stands in a `$match` of its own (see `mongo.one_page`).

When MongoDB is gone: StoreUnavailableError. When Redis is gone: see `state.cache`. The document is described
in `documents`, its indexes are in `state.feature_indexes`: every list and search rides on one. Reads O(1),
pages O(page), also on the local cluster's engine (`state.newest_first`).
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

from pymongo.errors import DuplicateKeyError

from app.core.errors import NotFoundError, StoreUnavailableError
from app.features.bookings import payments
from app.features.bookings.cached import lists_of_a_tenant, lists_with_a_new_booking
from app.features.bookings.jobs import COLLECTION, follow_up
from app.features.bookings.numbers import new_number
from app.features.bookings.transitions import Status
from app.state.documents import Decide, VersionedDocuments, Write
from app.state.keyed import Keyed
from app.state.kit import StateKit
from app.state.mongo import ClientSession, Document, counted, one_page
from app.state.principals import Principal, Role
from app.state.versions import VersionCheck, any_version

_SELECTIVE: Final = frozenset({"number", "reference_key"})
"""Fields of which few bookings share a value."""
_STAFF: Final[frozenset[Role]] = frozenset({"dispatcher", "admin"})


@dataclass(frozen=True, slots=True)
class Filters:
    """What a list is narrowed to."""

    status: Status | None = None
    number: str | None = None
    reference_key: str | None = None

    def query(self, scope: Mapping[str, str]) -> tuple[Document, Document]:
        """Return a filter that an index serves, and what else must hold of the few or many that it finds."""
        named = {"status": self.status, "number": self.number, "reference_key": self.reference_key}
        equal = {**scope, **{name: value for name, value in named.items() if value is not None}}
        few = equal.keys() & _SELECTIVE
        indexed = {"tenant_id", min(few)} if few else equal.keys()
        return (
            {name: equal[name] for name in equal if name in indexed},
            {name: equal[name] for name in equal if name not in indexed},
        )


def is_staff(caller: Principal) -> bool:
    """Say whether the caller sees all bookings of their tenant. Everybody else sees their own."""
    return caller.role in _STAFF


def scope_of(caller: Principal) -> dict[str, str]:
    """Return the part of every query that keeps out what the caller may not see."""
    if is_staff(caller):
        return {"tenant_id": caller.tenant_id}
    return {"tenant_id": caller.tenant_id, "user_id": caller.user_id}


class BookingStore:
    """The bookings of all tenants. Cheap to make."""

    def __init__(self, kit: StateKit) -> None:
        """Take from the kit what it needs."""
        self._kit = kit
        self._mongo = kit.mongo
        self._cache = kit.cache
        self._newest_first = kit.newest_first
        self._jobs = kit.jobs
        self._idempotency = kit.idempotency
        self._rows = kit.mongo.collection(COLLECTION)
        self._documents = VersionedDocuments(kit.mongo, COLLECTION, clock=kit.clock)

    async def insert(self, document: Document, keyed: Keyed[Document] | None) -> Document | None:
        """Insert a booking and return it, under another number if its own is taken; None if its draft is
        booked already.

        Raises CreditRefusedError, and with a key what `Idempotency.insert` raises.
        """
        document = {**document, "outbox": self._jobs.outbox([follow_up(document)])}
        owner = {"tenant_id": document["tenant_id"], "user_id": document["user_id"]}
        async with self._cache.changing(*lists_with_a_new_booking(**owner)):
            made = await self._insert(document, keyed)
        if made is not None:
            await self._newest_first.grew(COLLECTION, made)
            with suppress(StoreUnavailableError):  # a worker does it in a few seconds
                await self._jobs.relay(COLLECTION, made["_id"])
        return made

    async def get(self, caller: Principal, booking_id: str) -> Document:
        """Return a booking. Raises NotFoundError, also for what the caller may not see."""
        return await self._documents.get(scope_of(caller), booking_id)

    async def get_by_draft(self, caller: Principal, draft_id: str) -> Document:
        """Return the booking that a draft of the caller's became. Raises NotFoundError."""
        found = await self.find_by_draft(caller, draft_id)
        if found is None:
            raise NotFoundError
        return found

    async def find_by_draft(self, caller: Principal, draft_id: str) -> Document | None:
        """Return the booking that a draft of the caller's became."""
        owner = {"tenant_id": caller.tenant_id, "user_id": caller.user_id}
        async with self._mongo.guard("bookings.find_by_draft"):
            rows = self._rows.aggregate([{"$match": {"draft_id": draft_id}}, {"$match": owner}])
            return await anext(rows, None)

    async def page(
        self, caller: Principal, filters: Filters, *, before: tuple[datetime, str] | None, limit: int
    ) -> list[Document]:
        """Return up to `limit` bookings, newest first, older than the one with this date and id."""
        owned, also = filters.query(scope_of(caller))
        if owned.keys() & _SELECTIVE:
            pipeline = one_page(owned, also=also, order=-1, after=before, limit=limit)
            async with self._mongo.guard("bookings.search"):
                return [row async for row in self._rows.aggregate(pipeline)]
        return await self._newest_first.page(COLLECTION, owned, also=also, before=before, limit=limit)

    async def count_by_status(self, tenant_id: str, user_id: str, session: ClientSession) -> dict[str, int]:
        """Return how many bookings of a user's are what, as a transaction sees them."""
        pipeline = counted({"tenant_id": tenant_id, "user_id": user_id}, by="status")
        rows = self._rows.aggregate(pipeline, session=session)
        return {row["_id"]: row["count"] async for row in rows}

    async def change(
        self,
        caller: Principal,
        booking_id: str,
        decide: Decide,
        *,
        check_version: VersionCheck = any_version,
        keyed: Keyed[Document] | None = None,
    ) -> Document:
        """Set what `decide` makes of a booking and return it as it is then.

        Raises as `VersionedDocuments.change` does, and with a key what `Idempotency.run` raises.
        """
        async with self._cache.changing(*lists_of_a_tenant(caller.tenant_id)):
            _, after = await self._documents.change(
                scope_of(caller),
                booking_id,
                decide,
                check_version=check_version,
                together=partial(self._with_its_hold, keyed),
            )
        return after

    async def _with_its_hold(
        self, keyed: Keyed[Document] | None, before: Document, after: Document, write: Write
    ) -> bool:
        """Write a change, with what it does to the credit line and with the key of its request."""
        ends_hold = payments.ends_hold(before, after)

        async def work(session: ClientSession) -> bool:
            written = await write(session)
            if written and ends_hold:
                await payments.end_hold(self._kit, after, session)
            return written

        if keyed is None and ends_hold:
            return await self._kit.transactions.run(work)
        return await self._idempotency.write(keyed, work, after)

    async def _insert_with_hold(self, document: Document) -> None:
        async def work(session: ClientSession) -> None:
            await self._rows.insert_one(document, session=session)
            await payments.hold(self._kit, document, session)

        await self._kit.transactions.run(work)

    async def _insert(self, document: Document, keyed: Keyed[Document] | None) -> Document | None:
        insert = self._insert_with_hold if payments.is_on_credit(document) else None
        while True:
            try:
                await self._idempotency.insert(COLLECTION, document, keyed, document, insert=insert)
            except DuplicateKeyError as error:
                taken = (error.details or {}).get("keyPattern", {})
                if "draft_id" in taken:
                    return None
                if "number" not in taken:
                    raise
                document = {**document, "number": new_number()}
            else:
                return document
