"""Become another program that dies with its parent: `tether.py PARENT_PID SIGNAL PROGRAM ARGS...`.

Linux only. The kernel sends SIGNAL to the program when the supervisor is gone, however it went; the setting
survives `exec`. Done by a script rather than by `preexec_fn`, which runs Python between fork and exec and is
not safe in a process that has threads.
"""

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Tie this process to its parent, then become the program. Raises OSError where either can't be."""
    parent_pid, signal_number, program = int(arguments[0]), int(arguments[1]), arguments[2:]
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) was refused")
    if os.getppid() != parent_pid:  # it died before the setting was made
        sys.exit(1)
    os.execv(program[0], program)  # noqa: S606  # no shell wanted


if __name__ == "__main__":
    main(sys.argv[1:])
