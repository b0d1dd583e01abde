"""How many sessions of a type a user may have: as many as there are slots, each of which holds one.

Nothing is counted, so nothing can be counted wrong: a session takes a numbered slot under the unique index
`one_session_a_slot`. Who finds it taken asks for one that is free. O(slots) then, at random before.
"""

import random
from datetime import datetime

from app.core.errors import CargoFlowError
from app.state.mongo import MongoStore
from app.state.session_documents import Owner, SessionType

SESSIONS_MAX = 100
SINGLE: frozenset[SessionType] = frozenset({"preferences"})
"""Types of which a user has one at most."""


class SessionLimitError(CargoFlowError):
    """The user has as many sessions of this type as there may be."""

    status, code, title = 422, "session_limit", "Too many sessions"

    def __init__(self, session_type: SessionType, limit: int) -> None:
        """Say how many there may be."""
        super().__init__(
            f"There may be {limit} sessions of type {session_type}. Delete one, or wait until one expires."
        )


def any_slot(session_type: SessionType) -> int:
    """Return some slot, to try first: at random, which spreads those who insert at once."""
    return random.choice(_slots(session_type))  # noqa: S311  # hides nothing


async def free_slot(mongo: MongoStore, owner: Owner, session_type: SessionType, now: datetime) -> int:
    """Return a slot that nobody holds, removing an expired session if there is no other.

    Another may take it first: each time somebody is refused, somebody else was served. Raises
    SessionLimitError, StoreUnavailableError.
    """
    collection, slots = mongo.collection("sessions"), _slots(session_type)
    rows = {**owner.filter, "type": session_type}
    async with mongo.guard("sessions.slots"):
        used = {row["slot"]: row async for row in collection.find(rows, {"slot": 1, "expires_at": 1})}
    free = [slot for slot in slots if slot not in used]
    if free:
        return random.choice(free)  # noqa: S311  # as above
    ended = next((row for row in used.values() if row["expires_at"] <= now), None)
    if ended is None:
        raise SessionLimitError(session_type, len(slots))
    async with mongo.guard("sessions.tidy_up"):
        await collection.delete_one({"_id": ended["_id"], "expires_at": {"$lte": now}})
    slot: int = ended["slot"]
    return slot


def _slots(session_type: SessionType) -> range:
    return range(1 if session_type in SINGLE else SESSIONS_MAX)
