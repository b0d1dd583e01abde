"""The sessions that the scenarios read and write: a cart with a few lines, as a client would keep it."""

from collections.abc import Iterable
from typing import Any

from app.state.session_documents import Session
from bench.scenario import User, World

DATA: dict[str, Any] = {
    "step": 1,
    "currency": "EUR",
    "items": [
        {
            "sku": f"pallet-{number}",
            "description": "Euro pallet, 1200 x 800 mm",
            "quantity": 2,
            "weight_kg": 24,
        }
        for number in range(4)
    ],
}


async def make_carts(world: World, users: Iterable[User]) -> list[tuple[User, Session]]:
    """Make one cart for each of the users and return them together."""
    return [(user, await world.kit.sessions.create(user.owner, "cart", DATA)) for user in users]
