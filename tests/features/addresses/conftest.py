"""A client that is logged in, and what it sends."""

from typing import Any

import pytest


@pytest.fixture
def hamburg() -> dict[str, Any]:
    return {
        "label": "Warehouse",
        "contact_name": "Ines Olsen",
        "phone": "+49 40 428540",
        "line1": "Am Sandtorkai 50",
        "city": "Hamburg",
        "postal_code": "20457",
        "country": "DE",
    }
