"""What a transfer does to its accounts, whatever it is: nothing is made and nothing is lost."""

import string
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from app.features.ledger.accounts import Account
from app.features.ledger.seals import Head, hash_of, sealed
from app.features.ledger.transfers import KINDS, Transfer, both_sides, changes_of
from tests.features.ledger.money import TENANT

NOW = datetime(2026, 1, 31, 10, tzinfo=UTC)

amounts = st.integers(min_value=1, max_value=10**15)
ids = st.text(string.ascii_letters + string.digits + 'äöß€😀"\\/', min_size=1, max_size=12)


@st.composite
def transfers(draw: st.DrawFn) -> Transfer:
    """Several pairs of postings between any accounts, some of them the same."""
    pairs = draw(st.lists(st.tuples(ids, ids, amounts), max_size=4))
    sides = (
        both_sides(
            Account.credit_line(tenant_id=TENANT, user_id=debit, currency="EUR"),
            Account.credit_line(tenant_id=TENANT, user_id=credit, currency="EUR"),
            amount_minor,
        )
        for debit, credit, amount_minor in pairs
    )
    return Transfer(
        id=draw(ids),
        tenant_id=TENANT,
        kind=draw(st.sampled_from(KINDS)),
        currency="EUR",
        user_id=draw(ids),
        subject_id=draw(ids),
        postings=tuple(side for pair in sides for side in pair),
    )


@given(transfers())
def test_balances_add_up_to_nothing_and_what_is_used_is_what_remains_less(transfer: Transfer) -> None:
    changes = changes_of(transfer).values()
    assert sum(change.balance_minor for change in changes) == 0
    for change in changes:
        assert change.balance_minor + change.held_minor + change.remaining_minor == change.limit_minor


@given(transfers())
def test_a_hold_that_ends_leaves_nothing_held_and_is_worth_a_payout_if_it_is_posted(
    transfer: Transfer,
) -> None:
    def as_kind(kind: str) -> dict[str, tuple[int, int]]:
        same = Transfer(**{**{name: getattr(transfer, name) for name in transfer.__slots__}, "kind": kind})
        return {
            account_id: (change.balance_minor, change.held_minor)
            for account_id, change in changes_of(same).items()
        }

    hold, post, void, payout = (as_kind(kind) for kind in ("hold", "post", "void", "payout"))
    for account_id, (balance, held) in hold.items():
        assert balance == 0
        assert post[account_id] == (payout[account_id][0], -held)
        assert void[account_id] == (0, -held)


@given(transfers())
def test_what_is_stored_is_read_back_and_any_seal_fits_its_place_alone(transfer: Transfer) -> None:
    row = transfer.document(NOW)
    assert Transfer.from_document(row) == transfer
    genesis = Head.genesis(TENANT)
    seal, head = sealed(row, genesis, chain=TENANT, at=NOW)
    assert head == Head(1, hash_of({**row, "seal": seal}))
    moved, _ = sealed(row, head, chain=TENANT, at=NOW)
    assert moved["hash"] != seal["hash"]
