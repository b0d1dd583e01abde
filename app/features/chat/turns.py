"""One turn: a model speaks, tools are called for it, it speaks on, until it has nothing to add.

Every step (calls and results) is journaled before the model is asked again, so that whoever takes a run over
repeats at most one tool call, and tools only read. What was journaled or shown stays as it is: a model that
is asked again is given the beginning of its own words and goes on from there.
"""

import itertools
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, Final

import orjson

from app.core.errors import CargoFlowError, ValidationFailedError
from app.features.chat.answer_stream import ANSWER_MAX_CHARACTERS, AnswerStream
from app.features.chat.documents import Call, Step
from app.features.chat.models import Calls, Model, Prompt, Said, Usage
from app.http import json_body
from app.http.tools import Tool
from app.state.kit import StateKit
from app.state.principals import Principal

_log = logging.getLogger(__name__)

STEPS_MAX: Final = 6
"""After so many rounds of tool calls a model has to answer without."""
CALLS_MAX: Final = 8
"""In one round; further ones are refused."""
RESULT_MAX_BYTES: Final = 16 * 1024

Journal = Callable[[Step], Awaitable[None]]
"""Keeps a step, or raises if the run is not ours any more."""


class Turn:
    """The answering of one question, from wherever it stands."""

    def __init__(
        self,
        *,
        kit: StateKit,
        caller: Principal,
        model: Model,
        tools: Sequence[Tool],
        out: AnswerStream,
        journal: Journal,
    ) -> None:
        """`caller` is whose rights the tools run with."""
        self._kit = kit
        self._caller = caller
        self._model = model
        self._tools = {tool.name: tool for tool in tools}
        self._out = out
        self._journal = journal
        self.usage = Usage(0, 0)

    async def answer(self, question: str, history: Sequence[Said], steps: Sequence[Step]) -> None:
        """Write the rest of the answer to `out`. Raises ModelError, and what the journal raises."""
        done = list(steps)
        while True:
            tools = tuple(self._tools.values()) if len(done) < STEPS_MAX else ()
            calls = await self._speak(_prompt(question, history, done, self._out.text, tools))
            if not calls or not tools or len(self._out.text) >= ANSWER_MAX_CHARACTERS:
                return
            text_end = len(self._out.text)
            results = [await self._call(call) for call in calls[:CALLS_MAX]]
            step = Step(text_end, calls[:CALLS_MAX], tuple(results))
            await self._journal(step)
            done.append(step)

    async def _speak(self, prompt: Prompt) -> tuple[Call, ...]:
        calls: tuple[Call, ...] = ()
        async with aclosing(self._model.reply(prompt)) as parts:
            async for part in parts:
                if isinstance(part, str):
                    self._out.write(part[: ANSWER_MAX_CHARACTERS - len(self._out.text)])
                    if len(self._out.text) >= ANSWER_MAX_CHARACTERS:
                        return ()
                elif isinstance(part, Calls):
                    calls = part.calls
                else:
                    self.usage = self.usage.plus(part)
        return calls

    async def _call(self, call: Call) -> str:
        """Return a tool's result, or what is wrong, as JSON: the model is to make the best of either."""
        try:
            tool = self._tool(call.name)
            arguments = json_body.parse(call.arguments.encode(errors="replace") or b"{}")
            result: Any = await tool.call(self._kit, self._caller, arguments)
        except CargoFlowError as error:
            result = {"error": error.code, "detail": error.detail, **error.extra}
        except Exception:  # noqa: BLE001  # whatever a tool does, the run goes on
            _log.exception("tool_failed", extra={"tool": call.name[:64]})
            result = {"error": "internal_error", "detail": "The tool failed."}
        encoded = orjson.dumps(result, default=str)
        if len(encoded) > RESULT_MAX_BYTES:
            encoded = orjson.dumps({"error": "too_large", "detail": "The result is too long; ask for less."})
        return encoded.decode()

    def _tool(self, name: str) -> Tool:
        tool = self._tools.get(name)
        if tool is None:
            raise ValidationFailedError(f"There is no tool called {name[:64]!r}.")
        return tool


def _prompt(
    question: str, history: Sequence[Said], steps: Sequence[Step], text: str, tools: tuple[Tool, ...]
) -> Prompt:
    ends = [0, *(step.text_end for step in steps)]
    texts = [text[begin:end] for begin, end in itertools.pairwise(ends)]
    return Prompt(history, question, tuple(steps), texts, text[ends[-1] :], tools)
