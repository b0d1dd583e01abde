"""`/addresses`: a user's own address book, and nobody else's, not even for an admin."""

from typing import Annotated

from fastapi import Depends, Request, Response

from app.core.moments import from_milliseconds, timestamp, to_milliseconds
from app.features.addresses import service
from app.features.addresses.schemas import AddressChanges, AddressOut, NewAddress, ReplacedAddress
from app.features.addresses.store import AddressStore
from app.http.admission import Caller, Kit
from app.http.etags import IfMatch, WriteCondition, etag
from app.http.idempotency import KeyedCaller, created
from app.http.limits import limiter, per_user, setting
from app.http.paging import LIMIT_DEFAULT, PageCursor, PageLimit, decode_cursor, page_of
from app.http.responses import JsonResponse
from app.http.routing import ApiRouter
from app.http.schemas import Page
from app.state.keyed import Answer
from app.state.mongo import Document
from app.state.principals import Principal
from app.state.session_documents import Owner

router = ApiRouter(prefix="/addresses", tags=["Addresses"])
_writes = limiter.shared_limit(setting("limit_address"), scope="address", key_func=per_user)


async def _store(kit: Kit) -> AddressStore:
    return AddressStore(kit)


Store = Annotated[AddressStore, Depends(_store)]


@router.post("", status_code=201, response_model=AddressOut, summary="Add an address")
@_writes
async def create_address(
    request: Request, body: NewAddress, kit: Kit, call: KeyedCaller, store: Store
) -> Response:
    """Add an entry to the caller's address book."""

    def answer_of(made: Document) -> Answer:
        location = f"{kit.settings.base_path}/addresses/{made['_id']}"
        return created(_shown(made), location=location, version=made["version"])

    return await call.once(
        lambda keyed: service.create(store, _owner(call.principal), body, keyed), answer_of=answer_of
    )


@router.get("", response_model=Page[AddressOut], summary="List addresses")
async def list_addresses(
    caller: Caller, store: Store, cursor: PageCursor = None, limit: PageLimit = LIMIT_DEFAULT
) -> Response:
    """List the caller's address book, newest first."""
    position = decode_cursor("addresses", cursor, (int, str))
    before = None if position is None else (from_milliseconds(int(position[0])), str(position[1]))
    found = await store.page(_owner(caller), before=before, limit=limit + 1)
    page = page_of(found, limit=limit, kind="addresses", position_of=_position)
    return JsonResponse({**page, "items": [_shown(row) for row in page["items"]]})


@router.get("/{address_id}", response_model=AddressOut, summary="Read an address")
async def read_address(address_id: str, caller: Caller, store: Store) -> Response:
    """Show one entry of the caller's address book."""
    return _answer(await store.get(_owner(caller), address_id))


@router.put("/{address_id}", response_model=AddressOut, summary="Replace an address")
@_writes
async def replace_address(
    *,
    request: Request,
    address_id: str,
    body: ReplacedAddress,
    caller: Caller,
    store: Store,
    if_match: IfMatch,
) -> Response:
    """Put another address in the entry's place. Bookings made with it keep what it was."""
    condition = WriteCondition(if_match, body.version)
    address = NewAddress.model_construct(**{name: getattr(body, name) for name in service.FIELDS})
    return _answer(await service.replace(store, _owner(caller), address_id, address, condition.check))


@router.patch("/{address_id}", response_model=AddressOut, summary="Change an address")
@_writes
async def change_address(
    *,
    request: Request,
    address_id: str,
    body: AddressChanges,
    caller: Caller,
    store: Store,
    if_match: IfMatch,
) -> Response:
    """Change some fields of an entry. Bookings made with it keep what it was."""
    condition = WriteCondition(if_match, body.version)
    return _answer(await service.change(store, _owner(caller), address_id, body.changes, condition.check))


@router.delete("/{address_id}", status_code=204, summary="Delete an address")
@_writes
async def delete_address(
    *, request: Request, address_id: str, caller: Caller, store: Store, if_match: IfMatch
) -> Response:
    """Delete an entry. If it was the default, the caller has none until they choose another."""
    await store.delete(_owner(caller), address_id, WriteCondition(if_match).check)
    return Response(status_code=204)


def _owner(caller: Principal) -> Owner:
    return Owner(caller.tenant_id, caller.user_id)


def _answer(document: Document) -> Response:
    return JsonResponse(_shown(document), headers={"ETag": etag(document["version"])})


def _shown(document: Document) -> dict[str, object]:
    names = AddressOut.model_fields
    shown = {name: document[name] for name in names if name not in {"id", "created_at", "updated_at"}}
    return {
        "id": document["_id"],
        **shown,
        "created_at": timestamp(document["created_at"]),
        "updated_at": timestamp(document["updated_at"]),
    }


def _position(document: Document) -> tuple[int, str]:
    return to_milliseconds(document["created_at"]), document["_id"]
