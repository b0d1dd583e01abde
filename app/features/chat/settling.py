"""Putting what ended runs left where it belongs, many at a time and after the answers.

When a run has ended, its question and answer are safe in its conversation, and every reader looks there, too.
Moving them to `messages` can wait for a moment: whatever ends while one batch is written goes with the next,
so that the busier a replica is, the more turns share two round trips.

No more than QUEUE_MAX wait; the next run that ends here waits for room, so that a replica never answers much
faster than it settles.

Does not guarantee that what was offered is settled here: what a replica that dies, or that could not reach
MongoDB, left lying is settled by the next question in that conversation, or by whichever replica looks for
such runs (`runs`).
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final

from pymongo.errors import PyMongoError

from app.core.errors import StoreUnavailableError
from app.features.chat.store import ConversationStore

_log = logging.getLogger(__name__)

QUEUE_MAX: Final = 64


class Settling:
    """Settles what it is offered. One a replica; `work_forever` must run."""

    def __init__(self, store: ConversationStore) -> None:
        """Nothing waits yet."""
        self._store = store
        self._ended: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue(QUEUE_MAX)

    async def offer(self, conversation: Mapping[str, Any]) -> None:
        """Have a conversation settled soon whose run has ended. Waits for room, not for that."""
        await self._ended.put(conversation)

    async def work_forever(self) -> None:
        """Settle. Runs in the lifespan's tasks."""
        while True:
            batch = [await self._ended.get()]
            while not self._ended.empty():
                batch.append(self._ended.get_nowait())
            try:
                await self._store.settle(batch)
            except StoreUnavailableError:
                continue
            except PyMongoError as error:
                _log.error("chat_not_settled", extra={"reason": str(error)})
