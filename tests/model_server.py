"""A language model's endpoint for tests: a real HTTP server on loopback, OpenAI-compatible as far as it goes.

It does what its `script` says, a coroutine given the request's body and a `Speaker`; the ready-made ones
below count words aloud, call tools, or fail in one of the ways in which such endpoints fail. `requests` keeps
the bodies that came in.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from app.features.chat.jobs import TITLE_REQUEST

Script = Callable[[dict[str, Any], "Speaker"], Awaitable[None]]


class Speaker:
    """Writes an answer, chunk by chunk."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    async def status(self, status: int, body: bytes = b"{}", **headers: str) -> None:
        """Answer with a status and no stream."""
        lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.raw("\r\n".join([*lines, "", ""]).encode() + body)

    async def begin(self) -> None:
        """Begin a stream."""
        await self.raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")

    async def say(self, text: str) -> None:
        """Send some text."""
        await self._send({"choices": [{"index": 0, "delta": {"content": text}}]})

    async def call(self, name: str, arguments: Any) -> None:
        """Ask for a tool; the arguments come in two parts, as they do."""
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)
        half = len(text) // 2
        first = {"index": 0, "id": "call_x", "function": {"name": name, "arguments": text[:half]}}
        await self._send({"choices": [{"index": 0, "delta": {"tool_calls": [first]}}]})
        second = {"index": 0, "function": {"arguments": text[half:]}}
        await self._send({"choices": [{"index": 0, "delta": {"tool_calls": [second]}}]})

    async def end(self, reason: str = "stop") -> None:
        """End the stream as it should end."""
        await self._send({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
        await self._send({"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 7}})
        await self.raw(b"data: [DONE]\n\n")

    async def raw(self, data: bytes) -> None:
        """Send anything."""
        self._writer.write(data)
        await self._writer.drain()

    async def _send(self, chunk: dict[str, Any]) -> None:
        await self.raw(b"data: " + json.dumps(chunk).encode() + b"\n\n")


class ModelServer:
    """See the module."""

    def __init__(self, port: int) -> None:
        """Made by `model_server`."""
        self.url = f"http://127.0.0.1:{port}/v1"
        self.script: Script = counting(5)
        self.titles: Script | None = None
        """Answers workers that ask for a conversation's title; None: the script does that, too."""
        self.requests: list[dict[str, Any]] = []
        self.models_status = 200

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection, of one request."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            speaker = Speaker(writer)
            if head.startswith("get /v1/models"):
                await speaker.status(self.models_status)
            else:
                length = int(head.split("content-length:")[1].split("\r\n")[0])
                body = json.loads(await reader.readexactly(length))
                self.requests.append(body)
                titles = str(body["messages"][-1]["content"]).startswith(TITLE_REQUEST)
                await (self.titles if self.titles and titles else self.script)(body, speaker)
        writer.close()


@asynccontextmanager
async def model_server() -> AsyncIterator[ModelServer]:
    """Run one for the length of the block."""
    holder: list[ModelServer] = []
    connections: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            await holder[0].serve(reader, writer)
        except asyncio.CancelledError:
            writer.close()
        finally:
            connections.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    holder.append(ModelServer(server.sockets[0].getsockname()[1]))
    try:
        yield holder[0]
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


def word(number: int) -> str:
    """Return the word of that number, as a model says it."""
    return f"word{number} "


def counting(words: int, *, pause_s: float = 0.0, starts_over: bool = False) -> Script:
    """Count aloud; go on behind the words of an answer that was begun, or start over whatever was said."""

    async def script(body: dict[str, Any], speaker: Speaker) -> None:
        last = body["messages"][-1]
        said = last["content"].split() if last["role"] == "assistant" and not starts_over else []
        await speaker.begin()
        for number in range(len(said) + 1, words + 1):
            await speaker.say(word(number))
            await asyncio.sleep(pause_s)
        await speaker.end()

    return script


def echoing() -> Script:
    """Say what the user said, and how much one remembers."""

    async def script(body: dict[str, Any], speaker: Speaker) -> None:
        await speaker.begin()
        await speaker.say(f"you said: {body['messages'][-1]['content']}")
        await speaker.end()

    return script


def calling(name: str, arguments: Any) -> Script:
    """Call a tool, then say what it returned."""

    async def script(body: dict[str, Any], speaker: Speaker) -> None:
        last = body["messages"][-1]
        await speaker.begin()
        if last["role"] == "tool":
            await speaker.say(last["content"])
            await speaker.end()
        else:
            await speaker.say("Let me look. ")
            await speaker.call(name, arguments)
            await speaker.end("tool_calls")

    return script


def answering(status: int, **headers: str) -> Script:
    """Refuse."""

    async def script(body: dict[str, Any], speaker: Speaker) -> None:
        await speaker.status(status, b'{"error": {"message": "secret detail"}}', **headers)

    return script


async def silent(body: dict[str, Any], speaker: Speaker) -> None:
    """Say nothing for ever."""
    await asyncio.Event().wait()


async def silent_after_a_word(body: dict[str, Any], speaker: Speaker) -> None:
    """Say one word and then nothing for ever."""
    await speaker.begin()
    await speaker.say("word1 ")
    await asyncio.Event().wait()


async def rubbish(body: dict[str, Any], speaker: Speaker) -> None:
    """Send what is no chunk."""
    await speaker.begin()
    await speaker.raw(b"data: {<html>\n\n")


async def wrong_shape(body: dict[str, Any], speaker: Speaker) -> None:
    """Send JSON of another shape."""
    await speaker.begin()
    await speaker.raw(b'data: {"choices": [{"delta": [1, 2]}]}\n\n')


async def cutting(body: dict[str, Any], speaker: Speaker) -> None:
    """Say a few words and hang up."""
    await speaker.begin()
    for number in (1, 2, 3):
        await speaker.say(word(number))
