"""What a supervisor has started, written down so that it can be ended even if the supervisor was killed.

The file names the supervisor, its control socket and every child with its pid and identity. It is replaced as
a whole at each change and removed after an orderly stop. One that is there while nobody holds the cluster's
lock lists orphans, which `end_orphans` ends. A child that was started but not yet written down is covered on
Linux by its tether (`tether.py`).
"""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from app.cluster.identity import identity_of, left_in_group

STORES = ("mongo", "redis")
"""The names of the processes that must outlive the others, which still write to them while they drain."""

_ORPHAN_GRACE_S = 10.0
_KILL_WAIT_S = 5.0
_POLL_S = 0.05


@dataclass(frozen=True)
class ProcessEntry:
    """One process as it was when it was written down."""

    name: str
    pid: int
    identity: str
    cwd: str

    @property
    def alive(self) -> bool:
        """Whether that very process still runs."""
        return identity_of(self.pid) == self.identity


@dataclass(frozen=True)
class JournalEntry:
    """The whole file."""

    supervisor: ProcessEntry
    control: str
    url: str
    processes: tuple[ProcessEntry, ...] = field(default=())


def read_journal(path: Path) -> JournalEntry | None:
    """Return what was written down last; None if there is nothing, or nothing that can be read."""
    try:
        document: dict[str, Any] = json.loads(path.read_text())
        return JournalEntry(
            supervisor=ProcessEntry(**document["supervisor"]),
            control=document["control"],
            url=document["url"],
            processes=tuple(ProcessEntry(**process) for process in document["processes"]),
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


class Journal:
    """The file of the running supervisor. Only the holder of the cluster's lock may have one."""

    def __init__(self, path: Path, *, control: Path, url: str) -> None:
        """Write the first version: a supervisor, no processes."""
        self._path = path
        myself = ProcessEntry("supervisor", os.getpid(), identity_of(os.getpid()) or "", str(Path.cwd()))
        self._entry = JournalEntry(myself, str(control), url)
        self._write()

    def started(self, name: str, pid: int, cwd: Path) -> None:
        """Write down a process that was just started; one that is already gone is not."""
        identity = identity_of(pid)
        if identity is not None:
            self._keep(*self._without(name), ProcessEntry(name, pid, identity, str(cwd)))

    def ended(self, name: str) -> None:
        """Strike out a process of which nothing is left."""
        self._keep(*self._without(name))

    def remove(self) -> None:
        """Remove the file: nothing that was started runs any more."""
        self._path.unlink(missing_ok=True)

    def _without(self, name: str) -> Iterable[ProcessEntry]:
        return (process for process in self._entry.processes if process.name != name)

    def _keep(self, *processes: ProcessEntry) -> None:
        self._entry = replace(self._entry, processes=processes)
        self._write()

    def _write(self) -> None:
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(self._entry), indent=1))
        fresh.replace(self._path)


async def end_orphans(path: Path) -> list[str]:
    """End what a dead supervisor left behind and remove its journal; return the names of what was ended.

    Only for the holder of the cluster's lock. Stores go last. Each wave is asked (SIGTERM) and after 10 s
    made (SIGKILL) to end; when this returns, none of them runs. A process that merely has a recorded pid is
    left alone.
    """
    entry = read_journal(path)
    if entry is None:
        path.unlink(missing_ok=True)  # noqa: ASYNC240  # a small local file
        return []
    ended: list[str] = []
    for stores in (False, True):
        ended += await _end([process for process in entry.processes if (process.name in STORES) == stores])
    path.unlink(missing_ok=True)  # noqa: ASYNC240  # a small local file
    return ended


async def _end(processes: list[ProcessEntry]) -> list[str]:
    orphans = [process for process in processes if process.alive]
    for orphan in orphans:
        with contextlib.suppress(ProcessLookupError):
            os.kill(orphan.pid, signal.SIGTERM)
            os.kill(orphan.pid, signal.SIGCONT)  # one that was stopped can't end before it goes on
    await until_gone(orphans, _ORPHAN_GRACE_S)
    for orphan in orphans:
        if orphan.alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(orphan.pid, signal.SIGKILL)
    await until_gone(orphans, _KILL_WAIT_S)
    ended = {orphan.name for orphan in orphans}
    for process in processes:
        for member in left_in_group(process.pid, Path(process.cwd)):
            member.kill()
            ended.add(process.name)
    return sorted(ended)


async def until_gone(processes: list[ProcessEntry], timeout_s: float) -> None:
    """Return when none of these processes runs any more, or the time is up."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while any(process.alive for process in processes):  # noqa: ASYNC110  # not our children
                await asyncio.sleep(_POLL_S)
