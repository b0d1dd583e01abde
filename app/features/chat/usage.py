"""What language models have cost: tokens by user and month, hence by tenant.

A row a user and month in `chat_usage`: {_id tenant:user:YYYY-MM, tenant_id, user_id, month, answers,
prompt_tokens, completion_tokens}. Counted when an owner of a run is through with it, also if the run failed:
what two owners asked for was paid twice. A process that is killed takes its count along.
"""

import logging

from pymongo.errors import DuplicateKeyError

from app.core.errors import StoreUnavailableError
from app.features.chat.models import Usage
from app.state.kit import StateKit
from app.state.session_documents import Owner

_log = logging.getLogger(__name__)


class UsageStore:
    """Adds up. Cheap to make."""

    def __init__(self, kit: StateKit) -> None:
        """Take from the kit what it needs."""
        self._mongo = kit.mongo
        self._clock = kit.clock
        self._metrics = kit.metrics
        self._rows = kit.mongo.collection("chat_usage")

    async def add(self, owner: Owner, usage: Usage) -> None:
        """Count an answer. Lost, with a line in the log, when MongoDB is away: no answer fails for it."""
        self._metrics.chat_tokens("prompt", usage.prompt_tokens)
        self._metrics.chat_tokens("completion", usage.completion_tokens)
        month = self._clock.now().strftime("%Y-%m")
        row_id = f"{owner.tenant_id}:{owner.user_id}:{month}"
        counts = {
            "answers": 1,
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
        }
        try:
            async with self._mongo.guard("chat_usage.add"):
                result = await self._rows.update_one({"_id": row_id}, {"$inc": counts})
                if result.matched_count == 0:
                    await self._insert({"_id": row_id, **owner.filter, "month": month}, counts)
        except StoreUnavailableError:
            _log.warning("usage_not_counted", extra={"tokens": usage.prompt_tokens + usage.completion_tokens})

    async def _insert(self, row: dict[str, str], counts: dict[str, int]) -> None:
        try:
            await self._rows.insert_one({**row, **counts})
        except DuplicateKeyError:
            await self._rows.update_one({"_id": row["_id"]}, {"$inc": counts})
