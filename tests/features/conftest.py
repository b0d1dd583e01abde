"""A second replica's kit over the same stores."""

from collections.abc import AsyncIterator

import pytest

from app.core.settings import Settings
from app.state.kit import StateKit, open_kit
from tests.waiting import held_by_one_task, until


@pytest.fixture
async def other_kit(settings: Settings) -> AsyncIterator[StateKit]:
    async with held_by_one_task(open_kit(settings)) as opened:
        await until(lambda: opened.mongo.health.status == "pass" and opened.redis.health.status == "pass")
        yield opened
