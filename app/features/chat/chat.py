"""The chat of one replica: the model that answers, the runs, and what works for them in the background."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Final

import httpx
from fastapi import Depends, Request

from app.features.addresses.tools import TOOLS as ADDRESS_TOOLS
from app.features.bookings.tools import TOOLS as BOOKING_TOOLS
from app.features.chat.assistant import BuiltInAssistant
from app.features.chat.models import Model
from app.features.chat.provider import Provider
from app.features.chat.runs import Runs
from app.features.credit.tools import TOOLS as CREDIT_TOOLS
from app.features.ledger.tools import TOOLS as LEDGER_TOOLS
from app.http.tools import Tool
from app.state.kit import StateKit

TOOLS: Final[tuple[Tool, ...]] = (*BOOKING_TOOLS, *ADDRESS_TOOLS, *CREDIT_TOOLS, *LEDGER_TOOLS)
"""Everything that can be called, by whichever door."""

_CONNECTIONS: Final = httpx.Limits(max_connections=None, max_keepalive_connections=32)
"""How many there are at once is bounded by the provider's places."""


@dataclass(frozen=True, slots=True)
class Chat:
    """What the routes work with."""

    runs: Runs
    draining: asyncio.Event
    provider: Provider | None
    """None: the built-in assistant answers."""

    @property
    def services(self) -> dict[str, Provider]:
        """What `/ready` shows of it."""
        return {} if self.provider is None else {"chat": self.provider}


@asynccontextmanager
async def open_chat(kit: StateKit, draining: asyncio.Event) -> AsyncIterator[Chat]:
    """Begin to answer, and to look after runs that others left; at the end leave one's own to others."""
    settings = kit.settings
    async with AsyncExitStack() as opened, asyncio.TaskGroup() as tasks:
        background = []
        model: Model = BuiltInAssistant(kit.clock)
        provider: Provider | None = None
        if settings.chat_base_url:
            client = await opened.enter_async_context(httpx.AsyncClient(limits=_CONNECTIONS))
            model = provider = Provider(settings, client, kit.clock, kit.metrics)
            background.append(tasks.create_task(provider.probe_forever()))
        runs = Runs(kit, model=model, tools=TOOLS, draining=draining, tasks=tasks)
        background.append(tasks.create_task(runs.work_forever()))
        try:
            yield Chat(runs, draining, provider)
        finally:
            for task in background:
                task.cancel()
            runs.close()


async def _chat(request: Request) -> Chat:
    chat: Chat = request.app.state.chat
    return chat


ChatOfReplica = Annotated[Chat, Depends(_chat)]
