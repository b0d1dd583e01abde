"""The queries of the ledger's readers.

Tenant and, unless the ledger's staff ask, the customer are in every filter (`scope_of`). What an index serves
stands in a `$match` of its own (see `mongo.one_page`); the indexes are in `state.feature_indexes`. Reads
O(1), pages O(page). When MongoDB is gone: StoreUnavailableError.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from app.core.errors import NotFoundError
from app.features.ledger.accounts import AccountKind
from app.features.ledger.ledger import ACCOUNTS, TRANSFERS
from app.features.ledger.transfers import Kind
from app.state.kit import StateKit
from app.state.mongo import ClientSession, Document, counted, one_page
from app.state.principals import Principal, Role

STAFF: Final[tuple[Role, ...]] = ("admin", "underwriter")
"""Who sees all of their tenant's ledger. Everybody else sees what is theirs."""
LINES_MAX: Final = 20
"""Credit lines of one user: one a currency."""
_MOMENT: Final = timedelta(milliseconds=1)
"""Dates are whole ones. `$gt` of the one before stands for `$gte`, with which the local cluster's engine
misses the boundary where the range is not the last part of an index.
"""


@dataclass(frozen=True, slots=True)
class EntryFilters:
    """What a list of entries is narrowed to: at most one of account and kind rides on an index."""

    account_id: str | None = None
    kind: Kind | None = None
    since: datetime | None = None
    until: datetime | None = None

    def query(self, scope: Document) -> tuple[Document, Document]:
        """Return a filter that an index serves, and what else must hold."""
        narrow = {"account_ids": self.account_id} if self.account_id else scope
        created = {
            **({} if self.since is None else {"$gt": self.since - _MOMENT}),
            **({} if self.until is None else {"$lt": self.until}),
        }
        indexed: Document = {"tenant_id": scope["tenant_id"], **narrow}
        also = {name: value for name, value in scope.items() if name not in indexed}
        if self.kind is not None:
            (also if len(indexed) > 1 else indexed)["kind"] = self.kind
        if created:
            indexed["created_at"] = created
        return indexed, also


def scope_of(caller: Principal) -> Document:
    """Return the part of every query that keeps out what the caller may not see."""
    if caller.role in STAFF:
        return {"tenant_id": caller.tenant_id}
    return {"tenant_id": caller.tenant_id, "user_id": caller.user_id}


class LedgerStore:
    """The ledgers of all tenants, to be read. Cheap to make."""

    def __init__(self, kit: StateKit) -> None:
        """Take from the kit what it needs."""
        self._mongo = kit.mongo
        self._accounts = kit.mongo.collection(ACCOUNTS)
        self._transfers = kit.mongo.collection(TRANSFERS)

    async def get_account(self, caller: Principal, account_id: str) -> Document:
        """Return an account. Raises NotFoundError, also for what the caller may not see."""
        async with self._mongo.guard("ledger_accounts.find"):
            row = await self._accounts.find_one({"_id": account_id, **scope_of(caller)})
        if row is None:
            raise NotFoundError
        return dict(row)

    async def find_account(self, tenant_id: str, account_id: str) -> Document | None:
        """Return an account of the tenant."""
        async with self._mongo.guard("ledger_accounts.find"):
            row: Document | None = await self._accounts.find_one({"_id": account_id, "tenant_id": tenant_id})
        return row

    async def accounts(
        self, caller: Principal, *, kind: AccountKind | None, before: tuple[datetime, str] | None, limit: int
    ) -> list[Document]:
        """Return up to `limit` accounts, those opened last first."""
        also = None if kind is None else {"kind": kind}
        pipeline = one_page(scope_of(caller), also=also, order=-1, after=before, limit=limit)
        async with self._mongo.guard("ledger_accounts.page"):
            return [row async for row in self._accounts.aggregate(pipeline)]

    async def credit_lines(self, caller: Principal) -> list[Document]:
        """Return the caller's own credit lines, newest first, also a staff member's."""
        own = {"tenant_id": caller.tenant_id, "user_id": caller.user_id}
        pipeline = one_page(own, also={"kind": "credit"}, order=-1, after=None, limit=LINES_MAX)
        async with self._mongo.guard("ledger_accounts.credit_lines"):
            return [row async for row in self._accounts.aggregate(pipeline)]

    async def entries(
        self, caller: Principal, filters: EntryFilters, *, before: tuple[datetime, str] | None, limit: int
    ) -> list[Document]:
        """Return up to `limit` transfers, newest first, sealed or not."""
        indexed, also = filters.query(scope_of(caller))
        pipeline = one_page(indexed, also=also or None, order=-1, after=before, limit=limit)
        async with self._mongo.guard("ledger_transfers.page"):
            return [row async for row in self._transfers.aggregate(pipeline)]

    async def count_by_kind(self, tenant_id: str, user_id: str, session: ClientSession) -> dict[str, int]:
        """Return how many transfers of a customer's are what, as a transaction sees them."""
        pipeline = counted({"tenant_id": tenant_id, "user_id": user_id}, by="kind")
        rows = self._transfers.aggregate(pipeline, session=session)
        return {row["_id"]: row["count"] async for row in rows}
