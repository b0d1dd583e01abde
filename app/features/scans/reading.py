"""Reading a document in a process of its own (`reader`), and judging how that ended.

    pages = await read(media_type, kit.files.read(file))

Guarantees
- The event loop is never blocked, and the document is passed on a chunk at a time.
- A reading ends within WALL_MAX_S, CPU_MAX_S of processor time and MEMORY_MAX_BYTES, and leaves no process
  behind: not when the caller is cancelled, nor when this process is killed (the kernel ends the reader then).
- The reader is given no secret: its environment has nothing of this process's but the path.

What can't get better raises UnreadableError. ReadingInterruptedError means that another try may do better:
the reader was killed from outside, or the machine was too busy.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import app
from app.features.scans.fields import Field
from app.features.scans.limits import CHARACTERS_MAX, WALL_MAX_S
from app.features.scans.pages import Page
from app.features.scans.verdicts import SENTENCES

_ROOT: Final = str(Path(app.__file__).resolve().parents[1])
_ANSWER_MAX_BYTES: Final = 12 * CHARACTERS_MAX + 1024 * 1024
"""Any letter may take up twelve bytes in JSON, and each row has a number."""
_COMPLAINT_MAX_CHARACTERS: Final = 300
_TOO_MUCH: Final = frozenset({signal.SIGXCPU})
_OUTSIDE: Final = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


class UnreadableError(Exception):
    """The document can't be read, and never will be; `code` is one of `verdicts.SENTENCES`."""

    def __init__(self, code: str) -> None:
        """Carry the code, and its sentence as the message."""
        super().__init__(SENTENCES[code])
        self.code = code


class EngineMissingError(Exception):
    """The packages that read documents are not installed here."""

    def __init__(self) -> None:
        """Say how to install them."""
        super().__init__(SENTENCES["engine_missing"])


class ReadingInterruptedError(Exception):
    """The reading came to nothing, which may have been the machine's fault."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a document says. `cut`: there was more text than is kept."""

    pages: tuple[Page, ...]
    fields: tuple[Field, ...]
    cut: bool


async def read(media_type: str, document: AsyncIterator[bytes]) -> Reading:
    """Return what a document says.

    Raises UnreadableError, EngineMissingError, ReadingInterruptedError, and what `document` raises.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-s", "-m", "app.features.scans.reader", media_type, str(os.getpid())),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": _ROOT, "PATH": os.defpath, "LANG": "C.UTF-8", "OMP_THREAD_LIMIT": "1"},
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(WALL_MAX_S), asyncio.TaskGroup() as tasks:
            tasks.create_task(_feed(process, document))
            answer = tasks.create_task(_take(process.stdout, _ANSWER_MAX_BYTES))
            complaint = tasks.create_task(_take(process.stderr, _ANSWER_MAX_BYTES))
            await process.wait()
    except TimeoutError:
        raise ReadingInterruptedError(f"reading took longer than {WALL_MAX_S:g} s") from None
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return _judged(process.returncode or 0, answer.result(), complaint.result())


def _judged(status: int, answer: bytes, complaint: bytes) -> Reading:
    """Return what the reader said. Raises as `read` does."""
    if status < 0:
        ended_by = signal.Signals(-status)
        if ended_by in _OUTSIDE:
            raise ReadingInterruptedError(f"the reader was ended by {ended_by.name}")
        raise UnreadableError("too_complex" if ended_by in _TOO_MUCH else "damaged")
    try:
        said: dict[str, Any] = json.loads(answer)
    except ValueError:
        last = complaint.decode(errors="replace").strip()[-_COMPLAINT_MAX_CHARACTERS:]
        raise ReadingInterruptedError(f"the reader ended with {status}: {last}") from None
    if said.get("error") == "engine_missing":
        raise EngineMissingError
    if "error" in said:
        raise UnreadableError(said["error"])
    return Reading(
        pages=tuple(Page.from_wire(page) for page in said["pages"]),
        fields=tuple(Field.from_wire(field) for field in said["fields"]),
        cut=said["cut"],
    )


async def _feed(process: asyncio.subprocess.Process, document: AsyncIterator[bytes]) -> None:
    """Pass the document on. A reader that has seen enough takes no more."""
    assert process.stdin is not None  # noqa: S101  # it is a pipe
    with suppress(BrokenPipeError, ConnectionResetError):
        async for chunk in document:
            process.stdin.write(chunk)
            await process.stdin.drain()
    process.stdin.close()
    with suppress(BrokenPipeError, ConnectionResetError):
        await process.stdin.wait_closed()


async def _take(stream: asyncio.StreamReader | None, most: int) -> bytes:
    """Return what a process says, up to `most` bytes; what comes after that is thrown away."""
    assert stream is not None  # noqa: S101  # it is a pipe
    taken = bytearray()
    while piece := await stream.read(65536):
        taken += piece[: most - len(taken)]
    return bytes(taken)
