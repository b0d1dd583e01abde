"""The address book as a tool."""

from typing import Annotated, Final

from pydantic import Field

from app.features.addresses.store import AddressStore
from app.http.schemas import JsonObject, StrictModel
from app.http.tools import Tool
from app.state.kit import StateKit
from app.state.principals import Principal
from app.state.session_documents import Owner

LIMIT_MAX: Final = 50
_SHOWN = ("label", "contact_name", "line1", "line2", "city", "region", "postal_code", "country", "is_default")


class MyAddresses(StrictModel):
    """Nothing but how many."""

    limit: Annotated[int, Field(ge=1, le=LIMIT_MAX)] = 20


async def _my_addresses(kit: StateKit, caller: Principal, wanted: MyAddresses) -> JsonObject:
    owner = Owner(caller.tenant_id, caller.user_id)
    rows = await AddressStore(kit).page(owner, before=None, limit=wanted.limit + 1)
    addresses = [{"id": row["_id"], **{name: row[name] for name in _SHOWN}} for row in rows[: wanted.limit]]
    return {"addresses": addresses, "more": len(rows) > wanted.limit}


TOOLS: Final = (
    Tool(
        "my_addresses",
        "List the entries of the user's own address book, newest first.",
        MyAddresses,
        _my_addresses,
    ),
)
