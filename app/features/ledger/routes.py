"""`/ledger`: a tenant's for its admins and underwriters, and for everybody else what is theirs."""

from datetime import datetime
from typing import Annotated

from fastapi import Depends, Path, Query, Response
from pydantic import AwareDatetime

from app.core.moments import from_milliseconds, to_milliseconds
from app.features.ledger.accounts import AccountKind, shown_account
from app.features.ledger.schemas import AccountOut, EntryOut, VerifyOut
from app.features.ledger.store import STAFF, EntryFilters, LedgerStore
from app.features.ledger.transfers import Kind, shown_entry
from app.features.ledger.verification import verify
from app.http.admission import Caller, Kit, requires
from app.http.paging import LIMIT_DEFAULT, PageCursor, PageLimit, Position, decode_cursor, page_of
from app.http.responses import JsonResponse
from app.http.routing import ApiRouter
from app.http.schemas import Page
from app.state.mongo import Document
from app.state.principals import Principal

router = ApiRouter(prefix="/ledger", tags=["Ledger"])

Staff = Annotated[Principal, Depends(requires(*STAFF))]
"""Whose duty the whole of it is."""
SEQ_MAX = 2**53 - 1


async def _store(kit: Kit) -> LedgerStore:
    return LedgerStore(kit)


Store = Annotated[LedgerStore, Depends(_store)]


@router.get("/entries", response_model=Page[EntryOut], summary="List entries")
async def list_entries(
    *,
    store: Store,
    caller: Caller,
    account: Annotated[
        str | None, Query(max_length=64, description="Only those that touch this account.")
    ] = None,
    kind: Annotated[Kind | None, Query(description="Only transfers of this kind.")] = None,
    since: Annotated[
        AwareDatetime | None, Query(description="Only from this moment on, such as 2026-01-31T10:00:00Z.")
    ] = None,
    until: Annotated[AwareDatetime | None, Query(description="Only before this moment.")] = None,
    cursor: PageCursor = None,
    limit: PageLimit = LIMIT_DEFAULT,
) -> Response:
    """List transfers with their postings, newest first: the tenant's, or those that move the caller's own
    accounts.

    An account that is not there, or not the caller's, has no entries.
    """
    filters = EntryFilters(account_id=account, kind=kind, since=_storable(since), until=_storable(until))
    found = await store.entries(caller, filters, before=_before("ledger_entries", cursor), limit=limit + 1)
    rows = page_of(found, limit=limit, kind="ledger_entries", position_of=_position)
    return JsonResponse({**rows, "items": [shown_entry(row) for row in rows["items"]]})


@router.get("/accounts", response_model=Page[AccountOut], summary="List accounts")
async def list_accounts(
    *,
    store: Store,
    caller: Caller,
    kind: Annotated[AccountKind | None, Query(description="Only accounts of this kind.")] = None,
    cursor: PageCursor = None,
    limit: PageLimit = LIMIT_DEFAULT,
) -> Response:
    """List the tenant's accounts, or the caller's, those opened last first."""
    found = await store.accounts(
        caller, kind=kind, before=_before("ledger_accounts", cursor), limit=limit + 1
    )
    rows = page_of(found, limit=limit, kind="ledger_accounts", position_of=_position)
    return JsonResponse({**rows, "items": [shown_account(row) for row in rows["items"]]})


@router.get("/accounts/{account_id}", response_model=AccountOut, summary="Read an account")
async def read_account(
    account_id: Annotated[str, Path(max_length=64)], store: Store, caller: Caller
) -> Response:
    """Show an account: what is owed, what bookings hold, and what is left of its limit."""
    return JsonResponse(shown_account(await store.get_account(caller, account_id)))


@router.get("/verify", response_model=VerifyOut, summary="Verify the ledger")
async def verify_ledger(
    *,
    kit: Kit,
    caller: Staff,
    after: Annotated[
        int, Query(ge=0, le=SEQ_MAX, description="`through` of an answer that was not complete.")
    ] = 0,
) -> Response:
    """Walk the tenant's hash chain and add up every account; name the first thing that is wrong.

    Looks for four seconds at most. Where that is not enough `complete` is false: go on with `after`. Accounts
    are compared by a look at the whole only.
    """
    report = await verify(kit, caller.tenant_id, after=after)
    return JsonResponse(VerifyOut.model_validate(report, from_attributes=True))


def _before(kind: str, cursor: str | None) -> tuple[datetime, str] | None:
    position = decode_cursor(kind, cursor, (int, str))
    return None if position is None else (from_milliseconds(int(position[0])), str(position[1]))


def _storable(moment: datetime | None) -> datetime | None:
    """Return the nearest moment that a store knows."""
    return None if moment is None else from_milliseconds(to_milliseconds(moment))


def _position(document: Document) -> Position:
    return to_milliseconds(document["created_at"]), document["_id"]
