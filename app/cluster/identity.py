"""Which process is meant by a pid that was written down earlier.

A pid alone may belong to somebody else by now. With the moment it started it is unambiguous: on Linux in
clock ticks since boot, next to the boot's id, so that neither a changed clock nor a reboot can mislead;
elsewhere as psutil tells it.
"""

import os
import sys
from pathlib import Path

import psutil


def identity_of(pid: int) -> str | None:
    """Return what tells this process from any other that has had its pid; None if it does not run."""
    if sys.platform == "linux":
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        # the second field is the program's name in parentheses, which may itself hold spaces and parentheses
        fields = stat.rpartition(")")[2].split()
        state, start_ticks = fields[0], fields[19]
        return None if state in "ZX" else f"{_boot_id()}:{start_ticks}"
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.3f}"
    except psutil.NoSuchProcess:
        return None


def left_in_group(leader: int, cwd: Path) -> list[psutil.Process]:
    """Return what lives on in the process group of a leader that is gone, and works in `cwd` as it did.

    None while any process has the leader's pid: it is the leader itself, or a stranger with a group of its
    own.
    """
    members: list[psutil.Process] = []
    if identity_of(leader) is not None:
        return members
    for process in psutil.process_iter():
        try:
            if (
                os.getpgid(process.pid) == leader
                and process.cwd() == str(cwd)
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                members.append(process)
        except (psutil.Error, ProcessLookupError):
            continue
    return members


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
