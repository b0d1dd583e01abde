"""An application whose assistant is a language model: one that tests give its words."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from app.core.settings import Settings
from app.main import create_app
from app.state.kit import StateKit
from tests.model_server import ModelServer
from tests.waiting import held_by_one_task, until


@asynccontextmanager
async def application_with(model: ModelServer, settings: Settings, **changes: Any) -> AsyncIterator[FastAPI]:
    """Open one, with these changes to its settings, and wait for its stores."""
    asked = {"chat_base_url": model.url, "chat_model": "stub", **changes}
    application = create_app(settings.model_copy(update=asked))
    async with held_by_one_task(application.router.lifespan_context(application)):
        opened: StateKit = application.state.kit
        await until(lambda: opened.mongo.health.status == "pass" and opened.redis.health.status == "pass")
        yield application
