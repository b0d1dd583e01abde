"""A language model behind any OpenAI-compatible endpoint (`POST {CHAT_BASE_URL}/chat/completions`, streamed).

Guarantees
- Every answer of the provider, or none, becomes text, tool calls, or a ModelError: refused, silent for
  longer than CHAT_TIMEOUT_S, not JSON, cut off, 4xx, 429, 5xx.
- What failed for a reason that passes (no connection, 429, 5xx, cut off) is tried ATTEMPTS_MAX times, with
  jitter, a 429's Retry-After respected up to RETRY_AFTER_MAX_S. An attempt after some text came is given that
  text to go on from, as the next owner of a run would be.
- At most CHAT_CONCURRENCY requests at once; who waits longer than QUEUE_S for a place is told so.
- After BREAKER failures in a row requests fail at once, until the probe reaches the provider again: a
  provider that is down costs nobody more than a moment.

Does not guarantee that a model given its own beginning goes on exactly there: see `models.Continuation`.

The conversation is trimmed to CHAT_CONTEXT_TOKENS, oldest first (`prompts`). No store is involved.
"""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

import httpx

from app.core.clock import Clock
from app.core.errors import StoreUnavailableError
from app.core.metrics import Metrics
from app.core.settings import Settings
from app.features.chat.completions import CompletionReader, CutOffError
from app.features.chat.errors import ModelError, ModelTimeoutError, ModelUnavailableError
from app.features.chat.models import Continuation, Part, Prompt
from app.features.chat.prompts import messages_for, tool_definitions
from app.state.breaker import Breaker
from app.state.health import StoreHealth, StoreProbe

_log = logging.getLogger(__name__)

ATTEMPTS_MAX: Final = 3
BACKOFF_S: Final = 0.4
RETRY_AFTER_MAX_S: Final = 5.0
QUEUE_S: Final = 5.0
CONNECT_TIMEOUT_S: Final = 5.0
PROBE_INTERVAL_S: Final = 3.0
_PROBE_TIMEOUT_S: Final = 2.0
_TOO_MANY: Final = 429
_SERVER_ERROR: Final = 500
_BAD: Final = 400
_REFUSED: Final = frozenset((401, 403))


class _PassingError(Exception):
    """An attempt failed for a reason that may be gone at the next one."""

    def __init__(self, reason: str, *, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class Provider:
    """A `Model`. `probe_forever` must run."""

    history_turns = 20

    def __init__(self, settings: Settings, client: httpx.AsyncClient, clock: Clock, metrics: Metrics) -> None:
        """`client` has no base URL and no timeout of its own."""
        self._client = client
        self._url = settings.chat_base_url.rstrip("/")
        self._model = settings.chat_model
        self._timeout_s = settings.chat_timeout_s
        self._context_tokens = settings.chat_context_tokens
        key = settings.chat_api_key.get_secret_value()
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._places = asyncio.Semaphore(settings.chat_concurrency)
        self._clock = clock
        self._breaker = Breaker("chat provider", metrics)
        self._probe = StoreProbe(clock)

    async def reply(self, prompt: Prompt) -> AsyncGenerator[Part, None]:
        """Yield what the model says. Raises ModelError."""
        said = prompt.partial
        failures = 0
        while True:
            try:
                new = Continuation(said)
                async for part in self._attempt(replace(prompt, partial=said)):
                    if not isinstance(part, str):
                        yield part
                    elif piece := new.feed(part):
                        said += piece
                        yield piece
                if held := new.end():
                    yield held
            except _PassingError as error:
                failures += 1
                _log.warning("model_attempt_failed", extra={"reason": str(error), "attempt": failures})
                if failures >= ATTEMPTS_MAX:
                    raise ModelUnavailableError(f"The model can't be used right now: {error}.") from error
                pause_s = BACKOFF_S * 2 ** (failures - 1)
                await asyncio.sleep(max(error.wait_s, random.uniform(pause_s / 2, pause_s)))  # noqa: S311  # jitter
            else:
                return

    async def _attempt(self, prompt: Prompt) -> AsyncIterator[Part]:
        try:
            self._breaker.check()
        except StoreUnavailableError:
            raise ModelUnavailableError(
                "The model has not been answering; it is being tried again."
            ) from None
        async with self._place():
            try:
                async for part in self._stream(prompt):
                    yield part
            except (_PassingError, ModelTimeoutError) as error:
                self._breaker.failed(error)
                raise
            self._breaker.succeeded()

    async def _stream(self, prompt: Prompt) -> AsyncIterator[Part]:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": messages_for(prompt, tokens_max=self._context_tokens),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if prompt.tools:
            body["tools"] = tool_definitions(prompt.tools)
        timeout = httpx.Timeout(self._timeout_s, connect=min(CONNECT_TIMEOUT_S, self._timeout_s))
        try:
            request = self._client.stream(
                "POST", f"{self._url}/chat/completions", json=body, headers=self._headers, timeout=timeout
            )
            async with request as response:
                await _check(response)
                reader = CompletionReader()
                async for line in _lines(response, self._timeout_s):
                    for part in reader.feed(line):
                        yield part
                for part in reader.end():
                    yield part
        except CutOffError:
            raise _PassingError("its answer was cut off") from None
        except (httpx.ReadTimeout, httpx.WriteTimeout, httpx.PoolTimeout, TimeoutError):
            raise ModelTimeoutError(f"The model was silent for {self._timeout_s:g} s.") from None
        except httpx.RemoteProtocolError:
            raise _PassingError("its answer was cut off") from None
        except httpx.HTTPError as error:
            raise _PassingError(f"it can't be reached ({type(error).__name__})") from None

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(QUEUE_S):
                await self._places.acquire()
        except TimeoutError:
            raise ModelUnavailableError("Too many questions wait for the model.") from None
        try:
            yield
        finally:
            self._places.release()

    @property
    def health(self) -> StoreHealth:
        """What the probe last saw; no I/O."""
        return self._probe.health(pool={})

    async def probe_forever(self) -> None:
        """Ask for the list of models now and then: feeds `/ready` and closes the breaker."""
        while True:
            began_s = self._clock.monotonic_s()
            try:
                async with asyncio.timeout(_PROBE_TIMEOUT_S):
                    answer = await self._client.get(f"{self._url}/models", headers=self._headers)
            except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
                self._probe.failed(error)
            else:
                self._take_probe(answer.status_code, self._clock.monotonic_s() - began_s)
            await asyncio.sleep(PROBE_INTERVAL_S)

    def _take_probe(self, status: int, latency_s: float) -> None:
        """Take any answer for one but those that say that requests would fail: not all have such a list."""
        if status >= _SERVER_ERROR or status in _REFUSED:
            self._probe.failed(ModelError(f"status {status}"))
        else:
            self._probe.passed(latency_s=latency_s)
            self._breaker.succeeded()


async def _check(response: httpx.Response) -> None:
    """Raise for a status that brings no answer."""
    status = response.status_code
    if status == _TOO_MANY:
        raise _PassingError("it takes no more requests", wait_s=_retry_after_s(response))
    if status >= _SERVER_ERROR:
        raise _PassingError(f"it answered {status}")
    if status >= _BAD:
        _log.error("model_refuses", extra={"status": status})
        raise ModelError(f"The model refused the request ({status}).")


def _retry_after_s(response: httpx.Response) -> float:
    text = response.headers.get("retry-after", "")
    return min(float(text), RETRY_AFTER_MAX_S) if text.isdigit() else 0.0


async def _lines(response: httpx.Response, timeout_s: float) -> AsyncIterator[str]:
    """Yield lines as they come. A provider that keeps the connection busy with comments is silent as well."""
    lines = response.aiter_lines()
    while True:
        async with asyncio.timeout(timeout_s):
            while True:
                line = await anext(lines, None)
                if line is None or line.startswith("data:"):
                    break
        if line is None:
            return
        yield line
