"""The seal of an entry: its place in the tenant's chain, and a hash over what it says and what came before.

How to check a chain from outside, with the entries as `GET /ledger/entries` answers them, sorted by `seq`:

1. The first one's `prev_hash` is SHA-256 of the text `cargoflow-ledger:` and the tenant's id.
2. Each other one's `prev_hash` is the `hash` of the one before; `seq` counts 1, 2, 3, …
3. The `hash` of each is SHA-256, in hexadecimal, of the entry without its member `hash`, as JSON with its
   members sorted by name at every level, without white space, in UTF-8 (RFC 8785, of which no more is needed:
   the values are text, null and whole numbers below 2^53).
4. The last one's `hash` is `head_hash` of `GET /ledger/verify`.

In Python, `json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False)`. So what is answered
is what is sealed: there is no second form of an entry that could differ from the shown one. Pure.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import orjson

from app.features.ledger.transfers import shown_entry
from app.state.mongo import Document


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain: how many entries it has, and the hash of the last one."""

    seq: int
    hash: str

    @classmethod
    def genesis(cls, tenant_id: str) -> Self:
        """Return the end of a chain that has not begun."""
        return cls(0, hashlib.sha256(f"cargoflow-ledger:{tenant_id}".encode()).hexdigest())


def sealed(row: Mapping[str, Any], head: Head, *, chain: str, at: datetime) -> tuple[Document, Head]:
    """Return the seal that puts a transfer behind the end of the chain, and the new end."""
    seal: Document = {"chain": chain, "seq": head.seq + 1, "prev_hash": head.hash, "hash": None, "at": at}
    seal["hash"] = hash_of({**row, "seal": seal})
    return seal, Head(seal["seq"], seal["hash"])


def hash_of(row: Mapping[str, Any]) -> str:
    """Return what the hash of a sealed transfer must be. Raises what reading the broken raises."""
    entry = shown_entry(row)
    del entry["hash"]
    return hashlib.sha256(orjson.dumps(entry, option=orjson.OPT_SORT_KEYS)).hexdigest()
