"""How a command finds, starts, joins and ends the supervisor of a data folder."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from app.cluster.control import Answer, ControlError, NobodyThereError, SupervisorLostError, ask, heard
from app.cluster.events import Listener
from app.cluster.journal import end_orphans, read_journal, until_gone
from app.cluster.layout import REPOSITORY, Layout
from app.cluster.lock import ClusterLock
from app.cluster.log_files import last_lines, open_for_append
from app.cluster.plan import Plan

_JOIN_TIMEOUT_S = 120.0
_STATUS_SILENCE_S = 15.0
_CHANGE_SILENCE_S = 120.0
_STOP_SILENCE_S = 60.0
_SOON_S = 10.0
_POLL_S = 0.1


async def command(layout: Layout, name: str, listener: Listener, **arguments: object) -> Answer:
    """Have the running supervisor carry out a command.

    Raises NobodyThereError if none runs, ControlError if it could not.
    """
    silence_s = _STATUS_SILENCE_S if name == "status" else _CHANGE_SILENCE_S
    return await ask(_control_socket(layout), name, listener=listener, silence_s=silence_s, **arguments)


async def take_or_join(layout: Layout, listener: Listener) -> ClusterLock | Answer:
    """Return the cluster's lock, or, when a supervisor has it, that one's status once its cluster is up.

    One that is just stopping is waited for. Raises ControlError when the lock's holder does not answer for
    two minutes.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_JOIN_TIMEOUT_S):
            while True:
                lock = ClusterLock.take(layout.lock)
                if lock:
                    return lock
                with contextlib.suppress(ControlError):
                    return await command(layout, "wait", listener)
                await asyncio.sleep(_POLL_S)
    raise ControlError("a supervisor holds this data folder but does not answer; './cargoflow down' ends it")


async def start_daemon(plan: Plan, lock: ClusterLock, listener: Listener) -> Answer:
    """Start the supervisor in its own session, hand it the lock; return the status once the cluster is up.

    Raises ControlError, with the log's last lines, if it does not get there; nothing is left running then. If
    this is cancelled before that, the daemon is told to stop and waited for.
    """
    log_path = plan.layout.log("supervisor")
    reading, writing = os.pipe()
    with open_for_append(log_path) as log:
        log_start = log.tell()
        # not asyncio's subprocess: that kills the child when the event loop that started it is closed
        daemon = subprocess.Popen(  # noqa: ASYNC220  # it does not wait for the child
            (sys.executable, "-m", "app.cluster", plan.to_json(), str(lock.descriptor), str(writing)),
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(lock.descriptor, writing),
        )
    os.close(writing)
    lock.release()
    try:
        return await heard(_lines_of(reading), listener)
    except SupervisorLostError:
        await stop(plan.layout, listener)
        raise ControlError("the supervisor died", last_lines(log_path, 15, start=log_start)) from None
    except (asyncio.CancelledError, ControlError):
        daemon.terminate()
        await asyncio.to_thread(daemon.wait)
        raise


async def stop(layout: Layout, listener: Listener) -> list[str] | None:
    """End the cluster of a data folder, whatever state its supervisor is in; then nothing of it runs.

    Returns the names of orphans that had to be ended because their supervisor was gone, or None when nothing
    ran at all. Raises ControlError if the lock can't be had in the end.
    """
    entry = read_journal(layout.journal)
    lock = ClusterLock.take(layout.lock)
    ran = entry is not None or lock is None
    if lock is None:
        lock = await _stop_supervisor(layout, listener)
        if entry:
            await until_gone([entry.supervisor], _SOON_S)  # it lets go of the lock a moment before
    orphans = await end_orphans(layout.journal)
    lock.release()
    return orphans if ran else None


async def _stop_supervisor(layout: Layout, listener: Listener) -> ClusterLock:
    """Ask it on its socket; failing that with SIGTERM; failing that with SIGKILL. Returns its lock."""
    lock = await _ask_to_stop(layout, listener)
    for number, patience_s in ((signal.SIGTERM, _STOP_SILENCE_S), (signal.SIGKILL, _SOON_S)):
        if lock:
            return lock
        entry = read_journal(layout.journal)
        if entry and entry.supervisor.alive:
            os.kill(entry.supervisor.pid, number)
            os.kill(entry.supervisor.pid, signal.SIGCONT)
        lock = await _lock_within(layout, patience_s)
    if lock is None:
        raise ControlError(
            f"another process holds {layout.lock}, and it is not a supervisor that can be found"
        )
    return lock


async def _ask_to_stop(layout: Layout, listener: Listener) -> ClusterLock | None:
    """Return the lock after an orderly stop, None without an answer; one just begun gets 10 s to listen."""
    clock = asyncio.get_running_loop()
    give_up_s = clock.time() + _SOON_S
    while True:
        try:
            await ask(_control_socket(layout), "down", listener=listener, silence_s=_STOP_SILENCE_S)
        except NobodyThereError:
            lock = ClusterLock.take(layout.lock)
            if lock or clock.time() > give_up_s:
                return lock
            await asyncio.sleep(_POLL_S)
        except ControlError:
            return None
        else:
            return await _lock_within(layout, _SOON_S)


async def _lock_within(layout: Layout, seconds: float) -> ClusterLock | None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while True:
                lock = ClusterLock.take(layout.lock)
                if lock:
                    return lock
                await asyncio.sleep(_POLL_S)
    return None


def _control_socket(layout: Layout) -> Path:
    """Where the running supervisor listens: it may have been started with another TMPDIR than ours."""
    entry = read_journal(layout.journal)
    return Path(entry.control) if entry else layout.control_socket


async def _lines_of(descriptor: int) -> AsyncIterator[bytes]:
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb")
    )
    try:
        while line := await reader.readline():
            yield line
    finally:
        transport.close()
