"""What answers questions: the contract between a run and a model, be that a language model or the built-in
assistant.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from app.features.chat.documents import Call, Role, Step
from app.http.tools import Tool


@dataclass(frozen=True, slots=True)
class Said:
    """An earlier message of the conversation."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is asked to go on from: the conversation, the question, what tools have said so far, and
    `partial`, the beginning of its next words that the user has seen already.
    """

    history: Sequence[Said]
    question: str
    steps: Sequence[Step]
    step_texts: Sequence[str]
    """What was said before the calls of each step."""
    partial: str
    tools: Sequence[Tool]


@dataclass(frozen=True, slots=True)
class Calls:
    """The model wants these tools called before it goes on."""

    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class Usage:
    """What an answer cost."""

    prompt_tokens: int
    completion_tokens: int

    def plus(self, other: "Usage") -> "Usage":
        """Return the sum of both."""
        return Usage(
            self.prompt_tokens + other.prompt_tokens, self.completion_tokens + other.completion_tokens
        )


Part: TypeAlias = str | Calls | Usage


class Model(Protocol):
    """Answers, piece by piece."""

    history_turns: int
    """How many earlier turns it looks at."""

    def reply(self, prompt: Prompt) -> AsyncGenerator[Part, None]:
        """Yield the text that follows `partial`, as it comes; at most one Calls, at the end; Usage if known.

        Raises ModelError.
        """
        ...


class Continuation:
    """Takes what a model says after `partial` was shown, and lets through what is new.

    A model that is given the beginning of its answer goes on from there, or starts over and, if it is
    deterministic, says the same again. Text that repeats the whole of `partial` is taken for the latter and
    left out; text that differs from it anywhere, for the former. So a continuation that itself begins with
    the whole of `partial` loses that much, which happens to a `partial` of a word or two if ever.
    """

    def __init__(self, partial: str) -> None:
        """With nothing in `partial` all text passes."""
        self._partial = partial
        self._held = ""
        self._is_decided = not partial

    def feed(self, piece: str) -> str:
        """Return what of the text so far is new."""
        if self._is_decided:
            return piece
        self._held += piece
        if len(self._held) < len(self._partial) and self._partial.startswith(self._held):
            return ""
        self._is_decided = True
        return self._held.removeprefix(self._partial)

    def end(self) -> str:
        """Return what was held back when the model has ended: too little to be a repetition."""
        return "" if self._is_decided else self._held
