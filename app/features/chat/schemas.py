"""Bodies of the chat routes."""

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from app.core.moments import Timestamp
from app.http.schemas import Page, ResponseModel, StrictModel

MESSAGE_MAX_CHARACTERS: Final = 8_000


class NewMessage(StrictModel):
    """A question to the assistant."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"message": "Where is BK-7K3M-9QTX?"}]})

    message: Annotated[str, Field(min_length=1, max_length=MESSAGE_MAX_CHARACTERS)]
    session_id: Annotated[str, Field(max_length=64)] | None = None
    """The conversation to go on with; a new one without."""


class Reply(ResponseModel):
    """The assistant's answer."""

    session_id: str
    """The conversation: send it along with the next message."""
    message_id: str
    reply: str
    created_at: Timestamp


class ConversationOut(ResponseModel):
    """A conversation."""

    id: str
    title: str
    turns: int
    """Questions asked in it."""
    run_id: str | None
    """The answer that is being written at this moment: follow it at `/chat/runs/{run_id}/stream`."""
    created_at: Timestamp
    updated_at: Timestamp


class MessageOut(ResponseModel):
    """A message of a conversation."""

    id: str
    role: Literal["user", "assistant"]
    content: str
    created_at: Timestamp


class HistoryOut(Page[MessageOut]):
    """A page of a conversation: the newest page first, the oldest message of a page first."""

    session_id: str


class RunOut(ResponseModel):
    """How an answer ended."""

    run_id: str
    session_id: str
    state: Literal["done", "failed", "stopped"]
    message_id: str
    text: str
    """All that was written until then."""
