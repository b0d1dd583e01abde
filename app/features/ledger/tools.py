"""The caller's credit as a tool."""

from typing import Final

from app.features.ledger.accounts import shown_account
from app.features.ledger.store import LedgerStore
from app.http.schemas import JsonObject, StrictModel
from app.http.tools import Tool
from app.state.kit import StateKit
from app.state.principals import Principal


class MyCredit(StrictModel):
    """Nothing: it is the caller's."""


async def _my_credit(kit: StateKit, caller: Principal, _: MyCredit) -> JsonObject:
    lines = [shown_account(row) for row in await LedgerStore(kit).credit_lines(caller)]
    return {
        "credit_lines": [
            {
                "account_id": line["id"],
                "currency": line["currency"],
                "limit": line["limit"],
                "used": line["balance"],
                "held": line["held"],
                "available": line["remaining"],
            }
            for line in lines
        ]
    }


TOOLS: Final = (
    Tool(
        "my_credit",
        "Show the user's own credit, a line for each currency: the limit, what is used by delivered freight, "
        "what is held for bookings under way, and what is available.",
        MyCredit,
        _my_credit,
    ),
)
