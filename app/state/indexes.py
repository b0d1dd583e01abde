"""Every index of every collection: the invariants that live in unique indexes, and what queries need.

`ensure_indexes` is safe while serving and twice; with nothing to do it costs a few milliseconds. A replica is
not ready before it has run (`mongo`), since "one address, one user" would not hold without its index.
Building an index over much data takes longer than a replica waits: `./cargoflow migrate` does that.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from pymongo import IndexModel

from app.state import accounts, api_keys, locks, logins, mail_outbox, sessions
from app.state.mongo import MongoStore

_OWNERS = (accounts, api_keys, locks, logins, mail_outbox, sessions)

FEATURES: Final[Mapping[str, Sequence[IndexModel]]] = {
    "bookings": (
        *(
            IndexModel([*((name, 1) for name in owned), ("created_at", -1), ("_id", -1)])
            for owned in (
                ("tenant_id",),
                ("tenant_id", "status"),
                ("tenant_id", "user_id"),
                ("tenant_id", "user_id", "status"),
            )
        ),
        IndexModel([("tenant_id", 1), ("number", 1)], unique=True, name="one_number_a_tenant"),
        IndexModel([("tenant_id", 1), ("reference_key", 1), ("created_at", -1), ("_id", -1)]),
        # sparse, where partial would do: the local cluster's engine looks nothing up in a partial index
        IndexModel([("draft_id", 1)], unique=True, sparse=True, name="one_booking_a_draft"),
    ),
    "addresses": (
        IndexModel([("tenant_id", 1), ("user_id", 1), ("created_at", -1), ("_id", -1)], name="newest_first"),
        IndexModel(
            [("tenant_id", 1), ("user_id", 1)],
            unique=True,
            partialFilterExpression={"is_default": True},
            name="one_default_a_user",
        ),
    ),
}
"""Collections whose queries are in a feature's `store`, which can't be imported from here."""


async def ensure_indexes(mongo: MongoStore) -> None:
    """Create what is missing. Raises pymongo's errors."""
    for owner in _OWNERS:
        await owner.ensure_indexes(mongo)
    for name, indexes in FEATURES.items():
        await mongo.collection(name).create_indexes(list(indexes))
