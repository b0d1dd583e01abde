"""What Nginx says it saw, read from its log from a given moment on.

The client's side of a kill shows only how many requests were under way in the whole cluster. Which of them
were in the hands of the replica that died, Nginx alone knows: it complains about each.
"""

import re
from pathlib import Path

_CUT_OFF = re.compile(
    r"(?:upstream prematurely closed connection|(?:recv|send|readv|writev)\(\) failed \(\d+: [^)]+\))"
    r" while (?:reading response header from|sending request to) upstream.*?upstream: \"http://([^/\"]+)"
)


class NginxLog:
    """The end of a log that grows."""

    def __init__(self, path: Path) -> None:
        """Begin at the present end of the file."""
        self._path = path
        self._start = path.stat().st_size

    def cut_off(self, address: str) -> int:
        """Return how many requests had been handed to the replica at `address` and lost it before they were
        answered, since this was made.
        """
        with self._path.open("rb") as log:
            log.seek(self._start)
            text = log.read().decode(errors="replace")
        return sum(found == address for found in _CUT_OFF.findall(text))
