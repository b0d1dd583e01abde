"""Reading server-sent events."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ServerEvent:
    id: str
    type: str
    data: Any


def events_of(text: str) -> list[ServerEvent]:
    """Return the events of a whole stream; comments are left out."""
    return [event for block in text.split("\n\n") if (event := event_of(block)) is not None]


def event_of(block: str) -> ServerEvent | None:
    """Read one event, without the empty line at its end."""
    fields = {}
    for line in block.splitlines():
        name, _, value = line.partition(": ")
        if name and not line.startswith(":"):
            fields[name] = value
    if "event" not in fields:
        return None
    return ServerEvent(fields.get("id", ""), fields["event"], json.loads(fields["data"]))


def text_of(events: Iterable[ServerEvent]) -> str:
    """Return what a client shows after these events."""
    text = ""
    for event in events:
        if event.type == "delta":
            text += event.data["text"]
        elif event.type == "snapshot":
            text = event.data["text"]
    return text
