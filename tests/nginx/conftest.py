"""`edge`: the real Nginx before one peer. Tests that need more start their own with `running_edge`."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.nginx.edge import Edge, running_edge


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    async with running_edge(tmp_path) as running:
        yield running
