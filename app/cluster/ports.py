"""Loopback ports for the processes behind Nginx.

They come from below the kernel's ephemeral range (32768 and up on Linux, 49152 on macOS): a port from that
range could be taken by any outgoing connection while its process is being restarted, and could then not be
bound again.
"""

import secrets
import socket

from app.cluster.failures import StartFailedError

_FIRST, _COUNT = 20_000, 10_000
_TRIES = 200

LOOPBACK = "127.0.0.1"


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Say whether a server could bind the port now; connections that linger in TIME_WAIT don't count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


class Ports:
    """Hands out ports, none of them twice.

    Another program may still take one before it is bound: then ask for another.
    """

    def __init__(self) -> None:
        self._given: set[int] = set()

    def pick(self) -> int:
        """Return a free port. Raises StartFailedError if 200 tries find none."""
        for _ in range(_TRIES):
            port = _FIRST + secrets.randbelow(_COUNT)
            if port not in self._given and is_free(port):
                self._given.add(port)
                return port
        raise StartFailedError("cluster", f"finds no port between {_FIRST} and {_FIRST + _COUNT}")
