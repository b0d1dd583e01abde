"""The chat of one replica: the model that answers, the runs, and what works for them in the background."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Request

from app.features.addresses.tools import TOOLS as ADDRESS_TOOLS
from app.features.bookings.tools import TOOLS as BOOKING_TOOLS
from app.features.chat.assistant import BuiltInAssistant
from app.features.chat.runs import Runs
from app.http.tools import Tool
from app.state.kit import StateKit

TOOLS: Final[tuple[Tool, ...]] = (*BOOKING_TOOLS, *ADDRESS_TOOLS)
"""Everything that can be called, by whichever door."""


@dataclass(frozen=True, slots=True)
class Chat:
    """What the routes work with."""

    runs: Runs
    draining: asyncio.Event


@asynccontextmanager
async def open_chat(kit: StateKit, draining: asyncio.Event) -> AsyncIterator[Chat]:
    """Begin to answer, and to look after runs that others left; at the end leave one's own to others."""
    async with asyncio.TaskGroup() as tasks:
        runs = Runs(kit, model=BuiltInAssistant(), tools=TOOLS, draining=draining, tasks=tasks)
        background = [tasks.create_task(runs.work_forever())]
        try:
            yield Chat(runs, draining)
        finally:
            for task in background:
                task.cancel()
            runs.close()


async def _chat(request: Request) -> Chat:
    chat: Chat = request.app.state.chat
    return chat


ChatOfReplica = Annotated[Chat, Depends(_chat)]
