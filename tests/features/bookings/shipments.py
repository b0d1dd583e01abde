"""What tests book."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from app.core.moments import timestamp

HAMBURG: dict[str, Any] = {
    "contact_name": "Ines Olsen",
    "phone": "+4940428540",
    "line1": "Am Sandtorkai 50",
    "city": "Hamburg",
    "postal_code": "20457",
    "country": "DE",
    "location": {"lat": 53.5438, "lon": 9.9937},
}
ROTTERDAM: dict[str, Any] = {
    "contact_name": "Jan Visser",
    "phone": "+31107654321",
    "line1": "Wilhelminakade 909",
    "city": "Rotterdam",
    "postal_code": "3072 AP",
    "country": "NL",
    "location": {"lat": 51.9066, "lon": 4.4885},
}


def in_days(days: float) -> str:
    return timestamp(datetime.now(UTC) + timedelta(days=days))


def shipment(**changes: Any) -> dict[str, Any]:
    """A booking that can be made."""
    return {
        "pickup": HAMBURG,
        "delivery": ROTTERDAM,
        "cargo": {"description": "Machine parts", "weight_kg": 8400, "pieces": 12},
        "equipment": "dry_van",
        "pickup_at": in_days(5),
        **changes,
    }


async def book(api: httpx.AsyncClient, **changes: Any) -> dict[str, Any]:
    answer = await api.post("/bookings", json=shipment(**changes))
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made
