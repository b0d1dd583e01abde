"""Indexes of the collections whose queries are in a feature's `store`, which can't be imported from here.

Equalities come first, then the order of the list. Each index is there for a query of its store, or for an
invariant.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from pymongo import IndexModel

FEATURES: Final[Mapping[str, Sequence[IndexModel]]] = {
    "applications": (
        # A note moves nothing that is in one of them, which spares a MongoDB all of it; the local cluster's
        # engine takes 0.4 ms for each in any update. So other sorts than by date have one a tenant, whatever
        # else the list is narrowed to.
        *(
            IndexModel([*((name, 1) for name in owned), ("created_at", -1), ("_id", -1)])
            for owned in (
                ("tenant_id",),
                ("tenant_id", "status"),
                ("tenant_id", "user_id"),
                ("tenant_id", "reviewer.user_id"),
            )
        ),
        IndexModel([("tenant_id", 1), ("requested_amount.amount_minor", -1), ("_id", -1)]),
        IndexModel([("tenant_id", 1), ("company_key", -1), ("_id", -1)]),
        IndexModel([("outbox.created_at", 1)], sparse=True, name="outbox_to_be_relayed"),
    ),
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
        IndexModel([("outbox.created_at", 1)], sparse=True, name="outbox_to_be_relayed"),
    ),
    "scans": (
        IndexModel([("application_id", 1), ("sha256", 1)], unique=True, name="one_document_a_content"),
        IndexModel([("application_id", 1), ("number", 1)], unique=True, name="numbered"),
    ),
    "ledger_accounts": (
        IndexModel([("tenant_id", 1), ("created_at", -1), ("_id", -1)], name="newest_first"),
        IndexModel([("tenant_id", 1), ("user_id", 1), ("created_at", -1), ("_id", -1)]),
    ),
    "ledger_transfers": (
        *(
            IndexModel([*((name, 1) for name in narrowed), ("created_at", -1), ("_id", -1)])
            for narrowed in (
                ("tenant_id",),
                ("tenant_id", "user_id"),
                ("tenant_id", "account_ids"),
                ("tenant_id", "kind"),
            )
        ),
        IndexModel([("pending_id", 1)], unique=True, sparse=True, name="one_end_a_hold"),
        IndexModel([("seal.chain", 1), ("seal.seq", 1)], unique=True, sparse=True, name="one_entry_a_place"),
        IndexModel([("unsealed.chain", 1), ("unsealed.since", 1)], sparse=True, name="to_be_sealed"),
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
    "conversations": (
        IndexModel([("tenant_id", 1), ("user_id", 1), ("created_at", -1), ("_id", -1)], name="newest_first"),
        # only what is there while a run is under way, or a stone is left
        IndexModel([("run.id", 1)], unique=True, sparse=True),
        IndexModel([("run.owner", 1)], sparse=True),
        IndexModel([("run.lease_ends_at", 1)], sparse=True),
        IndexModel([("deleted_at", 1)], sparse=True),
        IndexModel([("outbox.created_at", 1)], sparse=True, name="outbox_to_be_relayed"),
    ),
    "messages": (
        IndexModel([("conversation_id", 1), ("turn", 1), ("n", 1)], unique=True, name="one_place_a_message"),
        IndexModel([("run_id", 1)], unique=True, sparse=True, name="one_answer_a_run"),
    ),
}
