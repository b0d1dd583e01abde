"""The queries of disbursements: one document a loan, which only the holder of its lock writes.

Tenant and, but for those who review, the applicant are in every filter. When MongoDB is gone:
StoreUnavailableError. O(1).
"""

from collections.abc import Mapping
from typing import Any, Final

from app.core.errors import NotFoundError
from app.state.documents import Scope
from app.state.kit import StateKit
from app.state.mongo import ClientSession, Document

COLLECTION: Final = "disbursements"


class SupersededError(RuntimeError):
    """The payment is not as it was read, though its lock is held. A mistake in the code, not in a request."""


class DisbursementStore:
    """The disbursements of all tenants. Cheap to make."""

    def __init__(self, kit: StateKit) -> None:
        """Take from the kit what it needs."""
        self._mongo = kit.mongo
        self._rows = kit.mongo.collection(COLLECTION)

    async def get(self, scope: Scope, application_id: str) -> Document:
        """Return the disbursement of an application. Raises NotFoundError, also outside of `scope`."""
        async with self._mongo.guard("disbursements.find"):
            row = await self._rows.find_one({"_id": application_id, **scope, "tenant_id": scope["tenant_id"]})
        if row is None:
            raise NotFoundError
        return dict(row)

    async def find(
        self, tenant_id: str, application_id: str, session: ClientSession = None
    ) -> Document | None:
        """Return the disbursement of an application, if it was ever asked for."""
        async with self._mongo.guard("disbursements.find"):
            row: Document | None = await self._rows.find_one(
                {"_id": application_id, "tenant_id": tenant_id}, session=session
            )
        return row

    async def put(self, disbursement: Document, session: ClientSession) -> None:
        """Insert an intent, or put it in the place of one that was refused, in a transaction."""
        if disbursement["attempt"] == 1:
            await self._rows.insert_one(disbursement, session=session)
            return
        before = {
            "_id": disbursement["_id"],
            "tenant_id": disbursement["tenant_id"],
            "state": "refused",
            "attempt": disbursement["attempt"] - 1,
        }
        result = await self._rows.replace_one(before, disbursement, session=session)
        if result.matched_count != 1:
            raise SupersededError(disbursement["_id"])

    async def settle(self, intent: Document, changes: Mapping[str, Any], session: ClientSession) -> Document:
        """Say how a pending payment ended, in a transaction, and return it as it is then."""
        pending = {
            "_id": intent["_id"],
            "tenant_id": intent["tenant_id"],
            "state": "pending",
            "attempt": intent["attempt"],
        }
        result = await self._rows.update_one(pending, {"$set": dict(changes)}, session=session)
        if result.matched_count != 1:
            raise SupersededError(intent["_id"])
        return {**intent, **changes}
