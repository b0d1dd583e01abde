"""Logs as JSON lines on stdout, written by a thread so that a slow reader never holds up the event loop.

A line has `ts`, `level`, `logger`, `message`, the process's own fields (`replica` or `worker`), the fields of
the request or job under way, whatever `extra=` a call gives, and `exception` with the traceback, readable
once its newlines are unescaped.

Guarantees: a log call costs formatting and an append, and never blocks; lines of one process stay in order;
no line breaks inside a line; what looks like a credential is replaced before it leaves the process. Does not
guarantee that every line arrives: the queue holds LINES_MAX lines, then new ones are dropped and counted (the
next line that fits says how many), and `kill -9` loses those of the last FLUSH_INTERVAL_S.
"""

import logging
import os
import re
import threading
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import orjson

LINES_MAX: Final = 20_000
FLUSH_INTERVAL_S: Final = 0.02
_CLOSE_TIMEOUT_S: Final = 2.0
_VALUE_MAX_CHARACTERS: Final = 16_000

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "taskName",
    "color_message",
}
_SECRET_NAME: Final = re.compile(
    r"password|passwd|secret|token|authorization|cookie|api[-_]?key|ticket|credential", re.IGNORECASE
)
_SECRET_TEXT: Final = re.compile(
    rb"eyJ[\w-]+\.[\w-]+\.[\w-]*"  # a JWT
    rb"|(?<=[Bb]earer )[\w.~+/=-]{8,}"
    rb"|\bcfr_[\w.-]+"  # a refresh token
    rb"|\bkey_[1-9A-HJ-NP-Za-km-z]{22}\.[\w-]+"  # an API key with its secret
    rb"|(?<=://)[^/@\s\"]*:[^/@\s\"]*(?=@)"  # user and password of a URI
)
_DUMP_OPTIONS: Final = orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z
_REDACTED: Final = "[redacted]"

ContextFields = Callable[[], Mapping[str, str]]


class LogSink:
    """A bounded queue of finished lines and the thread that writes them to a file descriptor."""

    def __init__(self, descriptor: int, *, lines_max: int = LINES_MAX) -> None:
        """`descriptor` is written to but never closed or made non-blocking: other processes may share it."""
        self._descriptor = descriptor
        self._lines: deque[bytes] = deque()
        self._lines_max = lines_max
        self._dropped = 0
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log-sink", daemon=True)
        self._thread.start()

    def write(self, line: bytes) -> None:
        """Queue one line, newline included; drops and counts it when the queue is full."""
        if len(self._lines) >= self._lines_max:
            self._dropped += 1
            return
        self._lines.append(line)
        if not self._wake.is_set():
            self._wake.set()

    def close(self) -> None:
        """Write what is queued and stop; gives up after two seconds if nobody reads."""
        self._closing.set()
        self._wake.set()
        self._thread.join(_CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._closing.wait(FLUSH_INTERVAL_S)
            self._wake.clear()
            self._write_out()
            if self._closing.is_set() and not self._lines:
                return

    def _write_out(self) -> None:
        dropped, self._dropped = self._dropped, 0
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        if dropped:
            lost = {
                "ts": datetime.now(UTC),
                "level": "WARNING",
                "message": "log_lines_dropped",
                "lines": dropped,
            }
            lines.append(orjson.dumps(lost, option=_DUMP_OPTIONS) + b"\n")
        rest = memoryview(b"".join(lines))
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            self._dropped += len(lines)


class JsonFormatter(logging.Formatter):
    """Renders a record as one JSON object, secrets redacted."""

    def __init__(self, *, process_fields: Mapping[str, str], context_fields: ContextFields) -> None:
        """`process_fields` are the same on each line; `context_fields` is asked for each line."""
        super().__init__()
        self._process_fields = dict(process_fields)
        self._context_fields = context_fields

    def render(self, record: logging.LogRecord) -> bytes:
        """Return the line without its newline."""
        fields = {
            name: _REDACTED if _SECRET_NAME.search(name) else value
            for name, value in vars(record).items()
            if name not in _STANDARD
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        at = datetime.fromtimestamp(record.created, UTC)
        return self.line(at, record.levelname, record.name, record.getMessage(), fields)

    def line(self, at: datetime, level: str, logger: str, message: str, fields: Mapping[str, Any]) -> bytes:
        """Return a line made of these parts, the process's and the context's."""
        line: dict[str, Any] = {
            "ts": at,
            "level": level,
            "logger": logger,
            "message": message,
            **self._process_fields,
            **self._context_fields(),
            **fields,
        }
        return redact(_dump(line))

    def format(self, record: logging.LogRecord) -> str:
        """Return the line as text, for handlers other than ours."""
        return self.render(record).decode()


class SinkHandler(logging.Handler):
    """Hands finished lines to a LogSink. Needs no lock: appending to the queue is atomic."""

    def __init__(self, sink: LogSink, formatter: JsonFormatter) -> None:
        """`formatter` makes the lines."""
        super().__init__()
        self._sink = sink
        self._json = formatter
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record."""
        try:
            self._sink.write(self._json.render(record) + b"\n")
        except Exception:  # noqa: BLE001  # a log call must not raise; logging's own way to say so
            self.handleError(record)

    def write(self, logger: str, message: str, fields: Mapping[str, Any]) -> None:
        """Queue a line at INFO that never was a record; `fields` must hold no secrets under their names."""
        self._sink.write(self._json.line(datetime.now(UTC), "INFO", logger, message, fields) + b"\n")


def line_writer(name: str, message: str) -> Callable[[Mapping[str, Any]], None]:
    """Return a function that logs `message` at INFO with the fields it is given, as the logger called `name`.

    For lines that are written on every request: past the machinery of records if our handler is installed by
    now, which is three times as fast.
    """
    logger = logging.getLogger(name)
    handler = next((each for each in logging.getLogger().handlers if isinstance(each, SinkHandler)), None)

    def write(fields: Mapping[str, Any]) -> None:
        if not logger.isEnabledFor(logging.INFO):
            return
        if handler is None:
            logger.info(message, extra=fields)
        else:
            handler.write(name, message, fields)

    return write


def configure_logging(
    level: str,
    *,
    process_fields: Mapping[str, str],
    context_fields: ContextFields = dict,
    descriptor: int = 1,
) -> LogSink:
    """Send every logger's records to stdout as JSON lines, uvicorn's included. Call once, in the process's
    entry point.

    Returns the sink; close it last. Drivers stay at WARNING: at DEBUG they log commands with their contents.
    """
    sink = LogSink(descriptor)
    handler = SinkHandler(sink, JsonFormatter(process_fields=process_fields, context_fields=context_fields))
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.captureWarnings(capture=True)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for name in ("pymongo", "asyncio", "httpx", "httpcore", "websockets", "multipart", "python_multipart"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(level)
    return sink


def redact(text: bytes) -> bytes:
    """Replace what has the shape of a token, an API key or a URI's password."""
    # one of these is in every match; looking for them first is forty times cheaper than the expression
    if b"eyJ" in text or b"earer " in text or b"key_" in text or b"cfr_" in text or b"://" in text:
        return _SECRET_TEXT.sub(_REDACTED.encode(), text)
    return text


def _dump(line: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(line, default=_readable, option=_DUMP_OPTIONS)
    except orjson.JSONEncodeError:
        return orjson.dumps({name: _readable(value) for name, value in line.items()})


def _readable(value: object) -> str:
    return str(value)[:_VALUE_MAX_CHARACTERS].encode(errors="replace").decode()
