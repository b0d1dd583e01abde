"""What a worker does for conversations: has the language model give them a title.

A conversation is called by the beginning of its first question from the start; without a language model that
stays.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import httpx

from app.core.errors import NotFoundError
from app.features.chat.models import Prompt
from app.features.chat.provider import Provider
from app.features.chat.store import COLLECTION, TITLE, ConversationStore
from app.state.job_run import Handler, Run
from app.state.kit import StateKit
from app.state.session_documents import Owner

__all__ = ["COLLECTION", "handlers"]

TITLE_MAX_CHARACTERS: Final = 80
_QUESTION_MAX_CHARACTERS: Final = 1_000
TITLE_REQUEST: Final = (
    "Answer with nothing but a title of at most six words for a conversation that begins so: "
)


def handlers(kit: StateKit) -> list[Handler]:
    """Return the handlers of this feature."""
    return [Handler(TITLE, partial(_give_title, kit), attempts_max=4, concurrency=2)]


async def _give_title(kit: StateKit, run: Run) -> Mapping[str, Any]:
    """Title a conversation once; idempotent, and harmless for one that is deleted."""
    owner = Owner(run.job.tenant_id, run.job.user_id)
    conversation_id = run.job.payload["conversation_id"]
    store = ConversationStore(kit)
    try:
        question = await store.first_question(owner, conversation_id)
    except NotFoundError:
        return {"title": None}
    async with httpx.AsyncClient() as client:
        provider = Provider(kit.settings, client, kit.clock, kit.metrics)
        prompt = Prompt((), TITLE_REQUEST + question[:_QUESTION_MAX_CHARACTERS], (), (), "", ())
        said = "".join([part async for part in provider.reply(prompt) if isinstance(part, str)])
    title = " ".join(said.split()).strip("\"'").rstrip(".")[:TITLE_MAX_CHARACTERS]
    if title:
        await store.rename(owner, conversation_id, title)
    return {"title": title or None}
