"""The rules of the address book."""

import asyncio
from collections.abc import Mapping
from typing import Any

from app.features.addresses.places import locate
from app.features.addresses.schemas import AddressFields, NewAddress
from app.features.addresses.store import AddressStore
from app.http.validation import validated
from app.state.keyed import Keyed
from app.state.mongo import Document
from app.state.session_documents import Owner
from app.state.versions import VersionCheck

_WHERE = ("country", "region", "city")
FIELDS = tuple(NewAddress.model_fields)


async def create(
    store: AddressStore, owner: Owner, address: NewAddress, keyed: Keyed[Document] | None = None
) -> Document:
    """Add an entry. Raises as `AddressStore.insert` does."""
    return await store.insert(owner, await with_location(address), keyed)


async def replace(
    store: AddressStore, owner: Owner, address_id: str, address: NewAddress, check_version: VersionCheck
) -> Document:
    """Put another address in an entry's place. Raises as `AddressStore.change` does."""
    fields = await with_location(address)

    async def put(_: Document) -> Document:
        return fields

    return await store.change(owner, address_id, put, check_version=check_version)


async def change(
    store: AddressStore,
    owner: Owner,
    address_id: str,
    changes: Mapping[str, Any],
    check_version: VersionCheck,
) -> Document:
    """Change some fields; what comes out must be an address again.

    Raises ValidationFailedError, and as `AddressStore.change` does.
    """

    async def merged(before: Document) -> Document:
        moved = any(name in changes and changes[name] != before[name] for name in _WHERE)
        kept = {name: before[name] for name in FIELDS if not (name == "location" and moved)}
        return await with_location(validated(NewAddress, {**kept, **changes}))

    return await store.change(owner, address_id, merged, check_version=check_version)


async def with_location(address: AddressFields) -> dict[str, Any]:
    """Return the address's fields, its location looked up unless given; null where that finds nothing."""
    fields = address.model_dump()
    if fields["location"] is None:
        found = await asyncio.to_thread(locate, address.country, address.city, address.region)
        fields["location"] = None if found is None else {"lat": found[0], "lon": found[1]}
    return fields
