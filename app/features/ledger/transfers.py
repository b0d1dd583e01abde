"""A transfer: what moves between accounts, in one document, whole or not at all.

Document in `ledger_transfers`: {_id its cause, tenant_id, kind, currency, user_id, subject_id, pending_id?,
postings [{account_id, account_kind, direction, amount_minor}], raises [{account_id, account_kind,
amount_minor}], account_ids, created_at, unsealed? {chain, since}, seal? {chain, seq, prev_hash, hash, at}}.
It is inserted once and never changed, but for the seal that takes the place of `unsealed` (`sealing`).

The id is the cause (`hold:bkg_…`), so whatever is done again because somebody died is the same transfer.
Debits equal credits. `pending_id` names the hold that a `post` or a `void` ends; a unique index lets one of
them. `account_ids` follow from the rest, for the sake of an index; `user_id` is the customer whose accounts
are moved.

| kind | id | does |
|---|---|---|
| `grant` | `grant:{application}` | raises the limits of credit line and loan; moves nothing |
| `hold` | `hold:{booking}` | announces the price of a booking: debit credit line, credit freight revenue |
| `post` | `post:{booking}` | the freight was delivered: what was announced happens |
| `void` | `void:{booking}` | the booking was cancelled: it won't happen |
| `payout` | `payout:{application}` | the loan was paid out: debit loan, credit payout clearing |

Pure: `changes_of` is the one place that says what a transfer does to its accounts, for who records it and for
who verifies it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final, Literal, Self, get_args

from app.core.moments import timestamp
from app.features.ledger.accounts import Account, AccountKind
from app.state.mongo import Document

Kind = Literal["grant", "hold", "post", "void", "payout"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
Direction = Literal["debit", "credit"]


@dataclass(frozen=True, slots=True)
class Posting:
    """A side of a transfer."""

    account_id: str
    account_kind: AccountKind
    direction: Direction
    amount_minor: int

    def __post_init__(self) -> None:
        """Raise ValueError for an amount that moves nothing, or backwards."""
        if self.amount_minor <= 0:
            raise ValueError(f"a posting of {self.amount_minor}")


@dataclass(frozen=True, slots=True)
class LimitRaise:
    """By how much the limit of an account grows."""

    account_id: str
    account_kind: AccountKind
    amount_minor: int


@dataclass(slots=True)
class Change:
    """What is added to the amounts of an account."""

    account_kind: AccountKind
    balance_minor: int = 0
    held_minor: int = 0
    limit_minor: int = 0

    @property
    def remaining_minor(self) -> int:
        """What is added to what may still be debited."""
        return self.limit_minor - self.balance_minor - self.held_minor

    def add(self, other: "Change") -> None:
        """Make this the sum of both."""
        self.balance_minor += other.balance_minor
        self.held_minor += other.held_minor
        self.limit_minor += other.limit_minor


@dataclass(frozen=True, slots=True)
class Transfer:
    """What is to be recorded. Raises ValueError if debits and credits differ."""

    id: str
    tenant_id: str
    kind: Kind
    currency: str
    user_id: str
    subject_id: str
    postings: tuple[Posting, ...] = ()
    raises: tuple[LimitRaise, ...] = ()
    pending_id: str | None = None

    def __post_init__(self) -> None:
        """Refuse what does not balance."""
        sums = {"debit": 0, "credit": 0}
        for posting in self.postings:
            sums[posting.direction] += posting.amount_minor
        if sums["debit"] != sums["credit"]:
            raise ValueError(f"{self.id} does not balance: {sums}")

    @classmethod
    def from_document(cls, row: Mapping[str, Any]) -> Self:
        """Read what is stored. Raises KeyError, TypeError, ValueError for what no transfer looks like."""
        return cls(
            id=row["_id"],
            tenant_id=row["tenant_id"],
            kind=row["kind"],
            currency=row["currency"],
            user_id=row["user_id"],
            subject_id=row["subject_id"],
            postings=tuple(Posting(**posting) for posting in row["postings"]),
            raises=tuple(LimitRaise(**raised) for raised in row["raises"]),
            pending_id=row.get("pending_id"),
        )

    def document(self, created_at: datetime) -> Document:
        """Return what is stored of it, seal or not."""
        pending = {} if self.pending_id is None else {"pending_id": self.pending_id}
        return {
            "_id": self.id,
            "tenant_id": self.tenant_id,
            "kind": self.kind,
            "currency": self.currency,
            "user_id": self.user_id,
            "subject_id": self.subject_id,
            **pending,
            "postings": [asdict(posting) for posting in self.postings],
            "raises": [asdict(raised) for raised in self.raises],
            "account_ids": sorted(
                {posting.account_id for posting in self.postings}
                | {raised.account_id for raised in self.raises}
            ),
            "created_at": created_at,
        }


def both_sides(debit: Account, credit: Account, amount_minor: int) -> tuple[Posting, Posting]:
    """Return the postings that move an amount from one account to another."""
    return (
        Posting(debit.id, debit.kind, "debit", amount_minor),
        Posting(credit.id, credit.kind, "credit", amount_minor),
    )


def changes_of(transfer: Transfer) -> dict[str, Change]:
    """Return what a transfer adds to each account that it touches."""
    changes: dict[str, Change] = {}
    for account_id, change in _parts(transfer):
        changes.setdefault(account_id, Change(change.account_kind)).add(change)
    return changes


def shown_entry(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a transfer as it is answered; `seals` says how its hash follows from that."""
    seal = row.get("seal") or {}
    return {
        "id": row["_id"],
        "kind": row["kind"],
        "currency": row["currency"],
        "user_id": row["user_id"],
        "subject_id": row["subject_id"],
        "pending_id": row.get("pending_id"),
        "postings": row["postings"],
        "raises": row["raises"],
        "created_at": timestamp(row["created_at"]),
        "seq": seal.get("seq"),
        "prev_hash": seal.get("prev_hash"),
        "hash": seal.get("hash"),
        "sealed_at": timestamp(seal["at"]) if seal else None,
    }


def _parts(transfer: Transfer) -> Iterable[tuple[str, Change]]:
    for raised in transfer.raises:
        yield raised.account_id, Change(raised.account_kind, limit_minor=raised.amount_minor)
    for posting in transfer.postings:
        yield posting.account_id, _change_of(transfer.kind, posting)


def _change_of(kind: Kind, posting: Posting) -> Change:
    """Return what one posting adds. A hold is kept by the side that promises it: the one that is debited."""
    amount, debit = posting.amount_minor, posting.direction == "debit"
    change = Change(posting.account_kind)
    if kind in {"hold", "post", "void"} and debit:
        change.held_minor = amount if kind == "hold" else -amount
    if kind in {"post", "payout"}:
        change.balance_minor = amount if debit else -amount
    return change
