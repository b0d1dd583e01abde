"""Reading the chunks of a streamed chat completion. Pure.

A provider is not to be trusted: what is no JSON, or JSON of another shape, is a ModelError, and a stream
that stops without having said why is CutOffError.
"""

from collections.abc import Iterator
from typing import Any, Final

import orjson

from app.features.chat.documents import Call
from app.features.chat.errors import ModelError
from app.features.chat.models import Calls, Part, Usage

ARGUMENTS_MAX_CHARACTERS: Final = 32_000
CALLS_MAX: Final = 32


class CutOffError(Exception):
    """The stream ended before the completion did."""


class CompletionReader:
    """Takes lines of `text/event-stream`, gives text at once and calls at the end."""

    def __init__(self) -> None:
        """Nothing was read."""
        self._calls: dict[int, dict[str, str]] = {}
        self._is_complete = False

    def feed(self, line: str) -> Iterator[Part]:
        """Yield what a `data:` line says. Raises ModelError."""
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            self._is_complete = True
            return
        try:
            chunk = orjson.loads(data)
            if "error" in chunk:
                raise ModelError("The model broke off with an error.")
            yield from self._read(chunk)
        except (orjson.JSONDecodeError, TypeError, KeyError, AttributeError, ValueError, IndexError):
            raise ModelError("The model's answer can't be read.") from None

    def end(self) -> Iterator[Part]:
        """Yield the calls, once the stream has ended. Raises CutOffError if that was too early."""
        if not self._is_complete:
            raise CutOffError
        if self._calls:
            yield Calls(
                tuple(
                    Call(call["id"] or f"call_{index}", call["name"], call["arguments"])
                    for index, call in sorted(self._calls.items())
                )
            )

    def _read(self, chunk: Any) -> Iterator[Part]:
        if chunk.get("usage"):
            usage = chunk["usage"]
            yield Usage(int(usage["prompt_tokens"]), int(usage["completion_tokens"]))
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            text = delta.get("content")
            if isinstance(text, str) and text:
                yield text.encode(errors="replace").decode()
            for call in delta.get("tool_calls") or ():
                self._collect(call)
            if choice.get("finish_reason") is not None:
                self._is_complete = True

    def _collect(self, part: Any) -> None:
        index = int(part.get("index") or 0)
        if index not in self._calls and len(self._calls) >= CALLS_MAX:
            raise ValueError("too many calls")
        call = self._calls.setdefault(index, {"id": "", "name": "", "arguments": ""})
        function = part.get("function") or {}
        call["id"] = call["id"] or str(part.get("id") or "")
        call["name"] += str(function.get("name") or "")
        call["arguments"] += str(function.get("arguments") or "")
        if len(call["arguments"]) > ARGUMENTS_MAX_CHARACTERS:
            raise ValueError("too long arguments")
