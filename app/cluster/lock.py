"""The lock that makes a data folder's supervisor the only one.

It is an advisory `flock` on an open file: the kernel frees it when the last process that has the file open is
gone, however that process died. So "locked" means "a supervisor lives", with no stale state to clean up. The
lock can be handed to a child process by its file descriptor; nobody else can slip in between.
"""

import fcntl
import os
from pathlib import Path
from typing import Self


class ClusterLock:
    """A held lock.

    `release()` frees it, unless another process has been handed the same descriptor and still lives.
    """

    def __init__(self, descriptor: int) -> None:
        """Take over a locked descriptor (see `take`); children of this process don't inherit it."""
        os.set_inheritable(descriptor, False)  # noqa: FBT003  # positional only
        self.descriptor = descriptor

    @classmethod
    def take(cls, path: Path) -> Self | None:
        """Lock the file, made if missing; None when another process holds it. Never waits."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return cls(descriptor)

    def release(self) -> None:
        """Let go of the lock."""
        os.close(self.descriptor)
