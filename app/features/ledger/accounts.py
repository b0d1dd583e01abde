"""An account as it is stored and as it is shown.

Document in `ledger_accounts`: {_id acc_…, tenant_id, kind, owner_id, user_id, currency, balance_minor,
held_minor, limit_minor, remaining_minor, created_at}. All amounts are in the currency's smallest unit.

- `balance_minor`: debits less credits. So all accounts of a tenant and currency always sum up to nothing.
- `held_minor`: debits that were announced and are neither posted nor void (two phases, as TigerBeetle has
  them).
- `limit_minor`: what balance and held may come to at most; null where there is no limit. It only grows, by
  grants.
- `remaining_minor`: limit less balance less held, kept so that a posting can be filtered by it; null without
  a limit.

The id follows from what the account is for, so that it can be named without being looked up, and opening it
twice is opening it once.

| kind | whose | a debit | a credit |
|---|---|---|---|
| `credit` | a customer's credit line | freight that was delivered, or is held | (nothing yet) |
| `loan` | an application's, paid out once | the payout | (nothing yet) |
| `freight_revenue` | the tenant's | | freight that was delivered |
| `payout_clearing` | the tenant's | | a payout, to be settled with the gateway |
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, Self

from app.core.ids import derived_id
from app.core.moments import timestamp
from app.state.mongo import Document

AccountKind = Literal["credit", "loan", "freight_revenue", "payout_clearing"]
LIMITED: Final[frozenset[AccountKind]] = frozenset({"credit", "loan"})
"""Kinds whose debits end at a limit."""
_AMOUNTS: Final = ("balance", "held", "limit", "remaining")


@dataclass(frozen=True, slots=True)
class Account:
    """Which account. `user_id`: the customer who may see it; none for the tenant's own."""

    tenant_id: str
    kind: AccountKind
    owner_id: str
    currency: str
    user_id: str | None = None

    @classmethod
    def credit_line(cls, *, tenant_id: str, user_id: str, currency: str) -> Self:
        """Return a customer's credit line."""
        return cls(tenant_id, "credit", user_id, currency, user_id)

    @classmethod
    def loan(cls, *, tenant_id: str, user_id: str, application_id: str, currency: str) -> Self:
        """Return the account of what an application may be paid out."""
        return cls(tenant_id, "loan", application_id, currency, user_id)

    @classmethod
    def of_tenant(
        cls, kind: Literal["freight_revenue", "payout_clearing"], *, tenant_id: str, currency: str
    ) -> Self:
        """Return one of the tenant's own accounts."""
        return cls(tenant_id, kind, tenant_id, currency)

    @property
    def id(self) -> str:
        """Its id, which follows from the rest."""
        return derived_id("acc", f"{self.tenant_id}:{self.kind}:{self.owner_id}:{self.currency}")

    def opened(self, now: datetime) -> Document:
        """Return the document of the account as it is opened: empty, and with a limit of nothing."""
        limit = 0 if self.kind in LIMITED else None
        return {
            "_id": self.id,
            "tenant_id": self.tenant_id,
            "kind": self.kind,
            "owner_id": self.owner_id,
            "user_id": self.user_id,
            "currency": self.currency,
            "balance_minor": 0,
            "held_minor": 0,
            "limit_minor": limit,
            "remaining_minor": limit,
            "created_at": now,
        }


def shown_account(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return an account as it is answered."""
    currency = document["currency"]

    def money(amount_minor: int | None) -> dict[str, Any] | None:
        return None if amount_minor is None else {"amount_minor": amount_minor, "currency": currency}

    return {
        "id": document["_id"],
        "kind": document["kind"],
        "owner_id": document["owner_id"],
        "user_id": document["user_id"],
        "currency": currency,
        **{name: money(document[f"{name}_minor"]) for name in _AMOUNTS},
        "created_at": timestamp(document["created_at"]),
    }
