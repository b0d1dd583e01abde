"""The ledger: transfers recorded together with what causes them, exactly once, within limits.

    await ledger.record(transfer, session)        # in the transaction of what causes it
    made_now = await ledger.make(transfer)        # in one of its own

Guarantees
- A transfer and what it does to its accounts are one commit, with whatever else the transaction holds.
- No limit is passed: each debit is an `$inc` whose filter asks for what remains, so the store decides,
  whoever races. A refusal writes nothing.
- A transfer's id is its cause: it is recorded once. A hold ends once: `pending_id` is unique.
- Debits equal credits in each transfer, hence the balances of a tenant and currency sum up to nothing in
  every snapshot.

Does not guarantee an order of the chain beyond what `sealing` says, nor that accounts were not changed by
other hands: `verification` finds that out.

Transactions that touch one account at the same moment run into each other and are tried again
(`transactions`): the price of a balance that is always right. The accounts that all customers of a tenant
share (`freight_revenue`, `payout_clearing`) are touched by deliveries and payouts only, not by holds.

Cost: one insert and one update an account. MongoDB gone: StoreUnavailableError; Redis is not involved.
Sources: TigerBeetle's data model (two-phase transfers, debits and credits); L. Pacioli, "Summa", 1494.
"""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from pymongo.errors import DuplicateKeyError

from app.core.moments import to_the_millisecond
from app.features.ledger.accounts import LIMITED, Account
from app.features.ledger.errors import InsufficientCreditError, TransferRepeatedError
from app.features.ledger.transfers import Change, Transfer, changes_of
from app.state.kit import StateKit
from app.state.mongo import ClientSession, Document

ACCOUNTS: Final = "ledger_accounts"
TRANSFERS: Final = "ledger_transfers"


class BrokenLedgerError(RuntimeError):
    """A transfer names an account that was never opened, or a hold that was never made.

    A mistake in the code, not in a request.
    """


class Ledger:
    """Records transfers and opens accounts. Cheap to make."""

    def __init__(self, kit: StateKit) -> None:
        """Take from the kit what it needs."""
        self._mongo = kit.mongo
        self._transactions = kit.transactions
        self._clock = kit.clock
        self._accounts = kit.mongo.collection(ACCOUNTS)
        self._transfers = kit.mongo.collection(TRANSFERS)

    async def open(self, accounts: Sequence[Account]) -> None:
        """Open those of these accounts that are not open. Raises StoreUnavailableError."""
        now = to_the_millisecond(self._clock.now())
        for account in accounts:
            with suppress(DuplicateKeyError):
                async with self._mongo.guard("ledger.open_account"):
                    await self._accounts.insert_one(account.opened(now))

    async def make(self, transfer: Transfer) -> bool:
        """Record a transfer in a transaction of its own; say whether this call did, or one before it.

        Raises InsufficientCreditError; TransferRepeatedError if another transfer has its id, or ended its
        hold; and as `Transactions.run` does, of which OutcomeUnknownError asks to be called again.
        """
        try:
            await self._transactions.run(partial(self.record, transfer))
        except TransferRepeatedError:
            if not await self.is_made(transfer):
                raise
            return False
        return True

    async def is_made(self, transfer: Transfer) -> bool:
        """Say whether a transfer is recorded. Raises TransferRepeatedError if another one has its id."""
        async with self._mongo.guard("ledger.find_transfer"):
            row = await self._transfers.find_one({"_id": transfer.id})
        if row is not None and Transfer.from_document(row) != transfer:
            raise TransferRepeatedError(transfer.id)
        return row is not None

    async def record(self, transfer: Transfer, session: ClientSession) -> None:
        """Record a transfer in a transaction, which must not go on if this raises.

        Raises InsufficientCreditError, TransferRepeatedError.
        """
        now = to_the_millisecond(self._clock.now())
        row = {**transfer.document(now), "unsealed": {"chain": transfer.tenant_id, "since": now}}
        try:
            await self._transfers.insert_one(row, session=session)
        except DuplicateKeyError as error:
            raise TransferRepeatedError(transfer.id) from error
        for account_id, change in changes_of(transfer).items():
            await self._apply(transfer, account_id, change, session)

    async def get_hold(self, tenant_id: str, hold_id: str, session: ClientSession) -> Transfer:
        """Return a hold of the tenant. Raises BrokenLedgerError if there is none."""
        row = await self._transfers.find_one({"_id": hold_id, "tenant_id": tenant_id}, session=session)
        if row is None:
            raise BrokenLedgerError(f"there is no {hold_id}")
        return Transfer.from_document(row)

    async def _apply(
        self, transfer: Transfer, account_id: str, change: Change, session: ClientSession
    ) -> None:
        amounts = {
            "balance_minor": change.balance_minor,
            "held_minor": change.held_minor,
            "limit_minor": change.limit_minor,
        }
        guards: Document = {}
        if change.account_kind in LIMITED:
            amounts["remaining_minor"] = change.remaining_minor
            if change.remaining_minor < 0:
                guards["remaining_minor"] = {"$gte": -change.remaining_minor}
        if change.held_minor < 0:
            guards["held_minor"] = {"$gte": -change.held_minor}
        added = {name: amount for name, amount in amounts.items() if amount}
        if not added:
            return
        account = {"_id": account_id, "tenant_id": transfer.tenant_id, "currency": transfer.currency}
        result = await self._accounts.update_one({**account, **guards}, {"$inc": added}, session=session)
        if result.matched_count == 1:
            return
        if "remaining_minor" not in guards:
            raise BrokenLedgerError(f"{transfer.id}: there is no {account_id}")
        row = await self._accounts.find_one(account, {"remaining_minor": 1}, session=session)
        raise InsufficientCreditError(
            wanted_minor=-change.remaining_minor,
            remaining_minor=None if row is None else row["remaining_minor"],
            currency=transfer.currency,
        )
