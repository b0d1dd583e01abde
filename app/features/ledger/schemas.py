"""What the ledger answers."""

from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field

from app.core.ids import ID_PATTERN
from app.core.moments import Timestamp
from app.features.ledger.accounts import AccountKind
from app.features.ledger.transfers import Direction, Kind
from app.features.ledger.verification import Why
from app.http.schemas import Money, ResponseModel

AccountId = Annotated[str, Field(pattern=ID_PATTERN, examples=["acc_4TFxkQm7JYpZr2sVnW8aBc"])]
_HASH: Final = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_ENTRY_EXAMPLE: Final[dict[str, Any]] = {
    "id": "post:bkg_4TFxkQm7JYpZr2sVnW8aBc",
    "kind": "post",
    "currency": "EUR",
    "user_id": "usr_4TFxkQm7JYpZr2sVnW8aBc",
    "subject_id": "bkg_4TFxkQm7JYpZr2sVnW8aBc",
    "pending_id": "hold:bkg_4TFxkQm7JYpZr2sVnW8aBc",
    "postings": [
        {
            "account_id": "acc_4TFxkQm7JYpZr2sVnW8aBc",
            "account_kind": "credit",
            "direction": "debit",
            "amount_minor": 129900,
        },
        {
            "account_id": "acc_7KmQm7JYpZr2sVnW8aBc4T",
            "account_kind": "freight_revenue",
            "direction": "credit",
            "amount_minor": 129900,
        },
    ],
    "raises": [],
    "created_at": "2026-02-03T08:00:00.000Z",
    "seq": 17,
    "prev_hash": _HASH,
    "hash": _HASH,
    "sealed_at": "2026-02-03T08:00:01.500Z",
}


class PostingOut(ResponseModel):
    """A side of an entry."""

    account_id: str
    account_kind: AccountKind
    direction: Direction
    amount_minor: int
    """In the smallest unit of the entry's currency; more than nothing."""


class LimitRaiseOut(ResponseModel):
    """By how much the limit of an account grew."""

    account_id: str
    account_kind: AccountKind
    amount_minor: int


class EntryOut(ResponseModel):
    """A transfer. Debits equal credits. It never changes, but for its seal, which is null at first."""

    model_config = ConfigDict(json_schema_extra={"examples": [_ENTRY_EXAMPLE]})

    id: str
    """Its cause: whatever is done again because somebody died is the same transfer."""
    kind: Kind
    """`grant` raises limits, `hold` announces the price of a booking, `post` and `void` end a hold, `payout`
    pays out a loan.
    """
    currency: str
    user_id: str
    """The customer whose accounts are moved."""
    subject_id: str
    """The booking or the application it is about."""
    pending_id: str | None
    """The hold that it ends."""
    postings: list[PostingOut]
    raises: list[LimitRaiseOut]
    created_at: Timestamp
    seq: int | None
    """Its place in the chain."""
    prev_hash: str | None
    """The hash of the entry before; of the first one, SHA-256 of `cargoflow-ledger:` and the tenant's id."""
    hash: str | None
    """SHA-256 of this entry without `hash`, as JSON sorted by name and without white space."""
    sealed_at: Timestamp | None


class AccountOut(ResponseModel):
    """An account as of now."""

    id: str
    kind: AccountKind
    owner_id: str
    """Whom or what it is for: a user, an application, or the tenant."""
    user_id: str | None
    """The customer who sees it too."""
    currency: str
    balance: Money
    """Debits less credits: what a customer owes; less than nothing for what the tenant earns."""
    held: Money
    """Announced by bookings that are not delivered yet."""
    limit: Money | None
    """What balance and held may come to; null where there is no limit."""
    remaining: Money | None
    """What may still be debited."""
    created_at: Timestamp


class FaultOut(ResponseModel):
    """The first thing that is wrong."""

    why: Why
    """`content_changed`: the entry is not what was sealed. `missing`: the chain has a gap here.
    `out_of_order`: it follows another entry than it names. `head_mismatch`: the chain does not end where its
    head says. `account_mismatch`: an account is not the sum of its transfers.
    """
    id: str | None
    """Of the entry, or of the account."""
    seq: int | None
    """Of an entry, or the place where it is missed."""
    detail: str


class VerifyOut(ResponseModel):
    """What was looked at, and the first thing that is wrong with it."""

    ok: bool
    """Nothing is wrong in what was looked at."""
    complete: bool
    """Whether that was all: the whole chain, and every account against its transfers."""
    entries: int
    """Entries of the chain that were found right."""
    through: int
    """The number of the last of them: go on with `after` if the chain is longer than one answer may take."""
    unsealed: int
    """Transfers that are waiting for their place in the chain, for some two seconds."""
    accounts: int
    """Accounts that were found right."""
    head_hash: str
    """The hash of the last entry. Who keeps it elsewhere can tell that the past was not written anew."""
    first_bad: FaultOut | None
