"""How the commands reach the running supervisor: a unix socket that only its owner may use.

One connection is one command. Lines of JSON both ways:

    -> {"command": "scale", "replicas": 5}
    <- {"heard": true}                                      at once: the supervisor is alive
    <- {"event": {"subject": "replica-4", "state": "busy", "text": "starting"}}     any number, as they happen
    <- {"result": {…}}   or   {"error": {"message": "…", "log": ["…"]}}             and it closes

A client that goes away does not end what it has asked for. An `up --detach` hears of its start in the same
words, over a pipe.
"""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from app.cluster.events import Announcer, Event, Listener
from app.cluster.failures import StartFailedError

Answer: TypeAlias = dict[str, Any]
Handler: TypeAlias = Callable[[Mapping[str, Any]], Awaitable[Answer]]

_REQUEST_TIMEOUT_S = 5.0
_LINE_MAX_BYTES = 1024 * 1024
_BACKLOG_BYTES = 256 * 1024
"""A client that doesn't read for that many bytes hears no further events."""


class ControlError(Exception):
    """A command was not carried out.

    The message is one line; `log` holds the last lines of the log that explains it.
    """

    def __init__(self, message: str, log: list[str] | None = None) -> None:
        super().__init__(message)
        self.log = log or []


class NobodyThereError(ControlError):
    """There is no supervisor on the socket."""


class SupervisorLostError(ControlError):
    """The supervisor heard the command, and then died or fell silent: what has become of it is unknown."""


def encode(kind: str, value: object) -> bytes:
    """Return one line of the protocol: an `event`, a `result` or an `error`."""
    return json.dumps({kind: value}).encode() + b"\n"


def failure_line(failure: StartFailedError | ControlError) -> bytes:
    """Return the `error` line for a failure."""
    log = failure.log_tail if isinstance(failure, StartFailedError) else failure.log
    return encode("error", {"message": str(failure), "log": log})


class ControlServer:
    """Serves commands until `close`. Every connection is a task of the group it was given."""

    def __init__(
        self, path: Path, handlers: Mapping[str, Handler], announcer: Announcer, group: asyncio.TaskGroup
    ) -> None:
        """`handlers` by command: what one returns, or raises of the failures above, is the answer."""
        self._path = path
        self._handlers = handlers
        self._announcer = announcer
        self._group = group
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen. Raises StartFailedError where the socket can't be made."""
        before = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(
                lambda reader, writer: self._group.create_task(
                    self._serve(reader, writer), name="control connection"
                ),
                self._path,
            )
        except OSError as error:
            raise StartFailedError(
                "cluster", f"has no control socket: {self._path}: {error.strerror or error}"
            ) from None
        finally:
            os.umask(before)

    def close(self) -> None:
        """Take no more commands. Those under way end with their handlers."""
        if self._server:
            self._server.close()
        self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def pass_on(event: Event) -> None:
            if not writer.is_closing() and writer.transport.get_write_buffer_size() < _BACKLOG_BYTES:
                writer.write(encode("event", event.as_json()))

        writer.write(encode("heard", value=True))
        with contextlib.suppress(OSError, TimeoutError):
            writer.write(await self._carried_out(reader, pass_on))
            async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                await writer.drain()
        writer.close()

    async def _carried_out(self, reader: asyncio.StreamReader, listener: Listener) -> bytes:
        try:
            async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                request = json.loads(await reader.readline())
            handler = self._handlers[request["command"]]
        except (ValueError, KeyError, TypeError):
            return failure_line(
                ControlError("the supervisor does not know this command; was it started by another version?")
            )
        try:
            with self._announcer.heard_by(listener):
                return encode("result", await handler(request))
        except (StartFailedError, ControlError) as failure:
            return failure_line(failure)


async def ask(
    path: Path, command: str, *, listener: Listener, silence_s: float, **arguments: object
) -> Answer:
    """Have the supervisor carry out a command; events are passed on as they come.

    Raises ControlError with what the supervisor says when it could not, NobodyThereError when there is none,
    SupervisorLostError when it dies meanwhile or is silent for `silence_s`.
    """
    try:
        async with asyncio.timeout(_REQUEST_TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(path, limit=_LINE_MAX_BYTES)
    except (OSError, TimeoutError):
        raise NobodyThereError("nothing runs here; './cargoflow up' starts it") from None
    try:
        writer.write(json.dumps({"command": command, **arguments}).encode() + b"\n")
        return await heard(_lines(reader, silence_s), listener)
    finally:
        writer.close()


async def heard(lines: AsyncIterator[bytes], listener: Listener) -> Answer:
    """Pass on the events among `lines` and return the result.

    Raises ControlError for an error, SupervisorLostError if they just end.
    """
    async for line in lines:
        message: dict[str, Any] = json.loads(line)
        if "event" in message:
            listener(Event(**message["event"]))
        elif "error" in message:
            raise ControlError(message["error"]["message"], message["error"]["log"])
        elif "result" in message:
            result: Answer = message["result"]
            return result
    raise SupervisorLostError("the supervisor went away")


async def _lines(reader: asyncio.StreamReader, silence_s: float) -> AsyncIterator[bytes]:
    patience_s = _REQUEST_TIMEOUT_S
    while True:
        try:
            async with asyncio.timeout(patience_s):
                line = await reader.readline()
        except (OSError, TimeoutError):
            raise SupervisorLostError("the supervisor does not answer") from None
        if not line:
            return
        yield line
        patience_s = silence_s
