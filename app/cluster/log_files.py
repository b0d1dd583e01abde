"""The processes' log files: appended to, rotated once when they are opened, read from the end."""

from io import FileIO
from pathlib import Path

_ROTATE_ABOVE_BYTES = 10 * 1024 * 1024
_TAIL_BYTES = 64 * 1024


def open_for_append(path: Path) -> FileIO:
    """Open a log unbuffered; one above 10 MB becomes `NAME.log.1` first, replacing the one before."""
    if path.exists() and path.stat().st_size > _ROTATE_ABOVE_BYTES:
        path.replace(path.with_name(path.name + ".1"))
    return path.open("ab", buffering=0)


def last_lines(path: Path, count: int, *, start: int = 0) -> list[str]:
    """Return up to `count` last lines written after the byte `start`; none if there is no such file."""
    try:
        with path.open("rb") as log:
            size = log.seek(0, 2)
            log.seek(max(start, size - _TAIL_BYTES))
            text = log.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    return text.splitlines()[-count:] if count else []
