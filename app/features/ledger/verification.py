"""Verification: the ledger read from its first entry to its last, and every account against its postings.

What is looked at
1. The chain: `seq` counts without a gap, each entry names the hash of the one before, each hash is that of
   the entry as it is stored now, nothing else stands in the document, and the last one is what the head says.
2. The accounts: balance, held, limit and what remains are the sums of all transfers, sealed or not; and each
   is whose it was opened for: its id follows from that, and the customer is who was granted its limit.

The first thing that is wrong is named: where, and why (`WHYS`). A wrong chain ends the search; its accounts
are not compared then.

Guarantees
- No false alarm while transfers go on: accounts are compared in transactions, whose snapshot shows them
  together with everything that was recorded by then.
- The event loop is never held for longer than BATCH hashes; memory is a few numbers an account.
- An answer within BUDGET_S and one batch. A chain that is longer than that is looked at in parts:
  `complete` is false, `through` says how far it got, and `after` goes on from there, trusting that the entry
  named by it was found right.

Does not find a change of a transfer in the second or two before it is sealed, unless its amounts
no longer fit the accounts; nor a whole chain that was written anew, head and accounts included: who fears
that keeps a `head_hash` elsewhere, and compares.

O(entries) reads, in batches by (chain, seq). MongoDB gone: StoreUnavailableError.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Final, Literal, cast, get_args

import orjson

from app.features.ledger.accounts import LIMITED, Account
from app.features.ledger.ledger import ACCOUNTS, TRANSFERS
from app.features.ledger.sealing import head_of
from app.features.ledger.seals import Head, hash_of
from app.features.ledger.transfers import Change, Transfer, changes_of
from app.state.kit import StateKit
from app.state.mongo import ClientSession, Document, one_page

Why = Literal["content_changed", "missing", "out_of_order", "head_mismatch", "account_mismatch"]
WHYS: Final[tuple[Why, ...]] = get_args(Why)

BUDGET_S = 4.0
"""Below the time for which Nginx waits for an answer."""
BATCH: Final = 200
_ACCOUNTS_AT_ONCE: Final = 100
_UNSEALED_MAX: Final = 2_000
"""More than that are not compared: the worker is behind, and a transaction is short."""
_SEAL_FIELDS: Final = {"chain", "seq", "prev_hash", "hash", "at"}
_UNREADABLE: Final = (KeyError, TypeError, ValueError, AttributeError, orjson.JSONEncodeError)


@dataclass(frozen=True, slots=True)
class Fault:
    """The first thing that is wrong. `id`: the entry's, or the account's; `seq`: an entry's, or its place."""

    why: Why
    id: str | None
    seq: int | None
    detail: str


@dataclass(slots=True)
class Report:
    """What was looked at, and the first thing that is wrong with it."""

    head_hash: str
    entries: int = 0
    through: int = 0
    unsealed: int = 0
    accounts: int = 0
    complete: bool = False
    first_bad: Fault | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong in what was looked at."""
        return self.first_bad is None


class _FaultError(Exception):
    """Something is wrong."""

    def __init__(self, why: Why, *, entry_id: str | None, seq: int | None, detail: str) -> None:
        super().__init__(detail)
        self.fault = Fault(why, entry_id, seq, detail)


class _OutOfTimeError(Exception):
    """The rest has to wait."""


@dataclass(slots=True)
class _Totals:
    """What transfers add up to, an account."""

    by_account: dict[str, Change] = field(default_factory=dict)
    customers: dict[str, str] = field(default_factory=dict)
    """Who was granted the limit of an account."""

    def add(self, transfer: Transfer) -> None:
        for raised in transfer.raises:
            self.customers[raised.account_id] = transfer.user_id
        for account_id, change in changes_of(transfer).items():
            self.by_account.setdefault(account_id, Change(change.account_kind)).add(change)


async def verify(kit: StateKit, tenant_id: str, *, after: int = 0) -> Report:
    """Look at a tenant's ledger, from the entry behind number `after` on; then at its accounts if that is 0.

    Raises StoreUnavailableError; ConflictError if others keep changing the accounts.
    """
    return await _Verification(kit, tenant_id, after=after).run()


class _Verification:
    def __init__(self, kit: StateKit, tenant_id: str, *, after: int) -> None:
        self._kit = kit
        self._tenant_id = tenant_id
        self._after = after
        self._ends_s = kit.clock.monotonic_s() + BUDGET_S
        self._transfers = kit.mongo.collection(TRANSFERS)
        self._accounts = kit.mongo.collection(ACCOUNTS)
        self._walked = Head.genesis(tenant_id)
        """The last entry that was found right and is in the totals."""
        self._compared = self._walked
        """The last one in the snapshot in which the unsealed were counted: no entry is in both or neither."""
        self._totals = _Totals()

    async def run(self) -> Report:
        report = Report(head_hash=self._walked.hash)
        try:
            if self._after:
                self._walked = await self._entry_before()
            await self._compare(report)
            report.complete = self._after == 0
        except _FaultError as error:
            report.first_bad = error.fault
        except _OutOfTimeError:
            pass
        if report.complete:
            report.head_hash = self._compared.hash
        else:
            async with self._kit.mongo.guard("ledger_chains.find"):
                report.head_hash = (await self._head(None, lenient=True)).hash
        report.through = max(self._walked.seq, self._compared.seq)
        report.entries = max(report.through - self._after, 0)
        return report

    async def _entry_before(self) -> Head:
        """Return where to go on, as an earlier look has left it."""
        wanted = {"seal.chain": self._tenant_id, "seal.seq": self._after}
        async with self._kit.mongo.guard("ledger.find_sealed"):
            row = await self._transfers.find_one(wanted)
        if row is None:
            detail = "There is no such entry to go on from."
            raise _FaultError("missing", entry_id=None, seq=self._after, detail=detail)
        return Head(self._after, str(row["seal"].get("hash")))

    async def _head(self, session: ClientSession, *, lenient: bool = False) -> Head:
        """Return the end of the chain as it is stored, which may be anything."""
        with suppress(*_UNREADABLE):
            head = await head_of(self._kit, self._tenant_id, session)
            seq, last_hash = cast("tuple[object, object]", (head.seq, head.hash))  # whatever was stored
            if isinstance(seq, int) and isinstance(last_hash, str):
                return head
        if lenient:
            return self._walked
        detail = "The head can't be read."
        raise _FaultError("head_mismatch", entry_id=None, seq=self._walked.seq, detail=detail)

    async def _walk(self) -> None:
        """Go through the chain up to where it ends by now, so that little is left to a transaction."""
        async with self._kit.mongo.guard("ledger.head"):
            head = await self._head(None)
        while self._walked.seq < head.seq:
            self._check_time()
            async with self._kit.mongo.guard("ledger.walk"):
                await self._take_batch(self._walked, head, self._totals, None)

    async def _compare(self, report: Report) -> None:
        """Compare all accounts, as many at a time as a short transaction bears; each has its own snapshot."""
        after: tuple[datetime, str] | None = None
        seen: set[str] = set()
        while True:
            await self._walk()
            page, unsealed, self._compared = await self._kit.transactions.run(
                partial(self._compare_page, after)
            )
            seen.update(row["_id"] for row in page)
            report.unsealed = unsealed
            if self._after:
                return
            report.accounts += len(page)
            if len(page) < _ACCOUNTS_AT_ONCE:
                break
            after = (page[-1]["created_at"], page[-1]["_id"])
        for account_id in self._totals.by_account.keys() - seen:
            raise _FaultError(
                "account_mismatch", entry_id=account_id, seq=None, detail="The account is not there."
            )

    async def _compare_page(
        self, after: tuple[datetime, str] | None, session: ClientSession
    ) -> tuple[Sequence[Document], int, Head]:
        """Finish the chain and compare a page of accounts, all as of one moment. May run more than once.

        Returns the page, how many transfers are unsealed, and the end of the chain.
        """
        head = await self._head(session)
        tail = _Totals()
        walked = self._walked
        while walked.seq < head.seq:
            self._check_time()
            walked = await self._take_batch(walked, head, tail, session)
        await self._check_end(walked, head, session)
        found = self._transfers.find({"unsealed.chain": self._tenant_id}, session=session)
        unsealed = await found.limit(_UNSEALED_MAX + 1).to_list(None)
        if self._after:
            return [], len(unsealed), walked
        if len(unsealed) > _UNSEALED_MAX:
            raise _OutOfTimeError
        for row in unsealed:
            tail.add(self._read(row, seq=None))
        pipeline = one_page({"tenant_id": self._tenant_id}, order=1, after=after, limit=_ACCOUNTS_AT_ONCE)
        page = [row async for row in self._accounts.aggregate(pipeline, session=session)]
        for row in page:
            self._check_account(row, tail)
        return page, len(unsealed), walked

    async def _take_batch(self, walked: Head, head: Head, totals: _Totals, session: ClientSession) -> Head:
        """Check the next entries and add them to `totals`; return the last one of them."""
        last = min(walked.seq + BATCH, head.seq)
        places = {"seal.chain": self._tenant_id, "seal.seq": {"$gt": walked.seq, "$lt": last + 1}}
        rows = await self._transfers.find(places, session=session).to_list(None)
        by_seq = {row["seal"]["seq"]: row for row in rows}
        for seq in range(walked.seq + 1, last + 1):
            row = by_seq.get(seq)
            if row is None:
                detail = f"There is no entry with this number; the chain goes on to {head.seq}."
                raise _FaultError("missing", entry_id=None, seq=seq, detail=detail)
            walked = self._check_entry(row, walked)
            totals.add(self._read(row, seq=seq))
            if session is None:
                self._walked = walked
        return walked

    def _check_entry(self, row: Document, before: Head) -> Head:
        seq: int = row["seal"]["seq"]
        seal = row["seal"]
        expected = None
        with suppress(*_UNREADABLE):
            expected = hash_of(row)
        if expected is None or expected != seal.get("hash") or not self._is_as_made(row):
            detail = "What is stored is not what was sealed."
            raise _FaultError("content_changed", entry_id=str(row["_id"]), seq=seq, detail=detail)
        if seal["prev_hash"] != before.hash:
            detail = "It follows another entry than the one before it."
            raise _FaultError("out_of_order", entry_id=row["_id"], seq=seq, detail=detail)
        return Head(seq, seal["hash"])

    def _is_as_made(self, row: Document) -> bool:
        """Say whether the document says what its hash covers and nothing else."""
        try:
            made = Transfer.from_document(row).document(row["created_at"])
        except _UNREADABLE:
            return False
        stored = {name: value for name, value in row.items() if name != "seal"}
        return made == stored and row["tenant_id"] == self._tenant_id and row["seal"].keys() == _SEAL_FIELDS

    def _read(self, row: Document, *, seq: int | None) -> Transfer:
        try:
            return Transfer.from_document(row)
        except _UNREADABLE:
            detail = "It can't be read."
            raise _FaultError("content_changed", entry_id=str(row["_id"]), seq=seq, detail=detail) from None

    async def _check_end(self, walked: Head, head: Head, session: ClientSession) -> None:
        beyond = {"seal.chain": self._tenant_id, "seal.seq": {"$gt": head.seq}}
        row = await self._transfers.find_one(beyond, session=session)
        if row is not None or walked != head:
            detail = f"The head says {head.seq} entries, ending in {head.hash[:12]}…; that is not the end."
            raise _FaultError("head_mismatch", entry_id=None, seq=walked.seq, detail=detail)

    def _check_account(self, row: Document, tail: _Totals) -> None:
        account_id = row["_id"]
        sums = Change(row.get("kind", "credit"))
        for totals in (self._totals, tail):
            part = totals.by_account.get(account_id)
            if part is not None:
                sums.add(part)
        limited = sums.account_kind in LIMITED
        customers = (totals.customers.get(account_id) for totals in (tail, self._totals))
        customer = next((known for known in customers if known), row.get("user_id"))
        expected: Mapping[str, Any] = {
            "balance_minor": sums.balance_minor,
            "held_minor": sums.held_minor,
            "limit_minor": sums.limit_minor if limited else None,
            "remaining_minor": sums.remaining_minor if limited else None,
            "user_id": customer if limited else None,
        }
        wrong = [
            f"{name} is {row.get(name)}, and by its transfers it is {value}"
            for name, value in expected.items()
            if row.get(name) != value
        ]
        if not self._is_itself(row):
            wrong.append("it is not whose it was opened for")
        if wrong:
            raise _FaultError("account_mismatch", entry_id=account_id, seq=None, detail="; ".join(wrong))

    def _is_itself(self, row: Document) -> bool:
        """Say whether an account's id follows from what it says of itself."""
        with suppress(*_UNREADABLE):
            account = Account(self._tenant_id, row["kind"], row["owner_id"], row["currency"])
            return bool(account.id == row["_id"])
        return False

    def _check_time(self) -> None:
        if self._kit.clock.monotonic_s() >= self._ends_s:
            raise _OutOfTimeError
