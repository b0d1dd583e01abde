"""Putting what ended runs left where it belongs, many at a time and after the answers.

When a run has ended, its question and answer are safe in its conversation, and every reader looks there, too.
Moving them to `messages` can wait for a moment: whatever ends while one batch is written goes with the next,
so that the busier a replica is, the more turns share two round trips.

Does not guarantee that what was offered is settled here: what a replica that dies, or that could not reach
MongoDB, left lying is settled by the next question in that conversation, or by any replica's scan once the
run's lease is over (`runs`). At most QUEUE_MAX wait; the rest is left to those.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from pymongo.errors import PyMongoError

from app.core.errors import StoreUnavailableError
from app.features.chat.store import ConversationStore

_log = logging.getLogger(__name__)

QUEUE_MAX: Final = 1_000
_AT_ONCE: Final = 50


class Settling:
    """Settles what it is offered. One a replica; `work_forever` must run."""

    def __init__(self, store: ConversationStore) -> None:
        """Nothing waits yet."""
        self._store = store
        self._ended: deque[Mapping[str, Any]] = deque(maxlen=QUEUE_MAX)
        self._news = asyncio.Event()

    def offer(self, conversation: Mapping[str, Any]) -> None:
        """Have a conversation settled soon whose run has ended. Never waits."""
        self._ended.append(conversation)
        self._news.set()

    async def work_forever(self) -> None:
        """Settle. Runs in the lifespan's tasks."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._ended:
                batch = [self._ended.popleft() for _ in range(min(_AT_ONCE, len(self._ended)))]
                try:
                    await self._store.settle(batch)
                except StoreUnavailableError:
                    continue
                except PyMongoError as error:
                    _log.error("chat_not_settled", extra={"reason": str(error)})
