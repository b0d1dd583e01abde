"""logs: what the cluster's processes have written, running or not."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from io import BufferedReader
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from app.cli.options import DataOption
from app.cli.terminal import CommandFailedError, console
from app.cluster.layout import Layout
from app.cluster.log_files import last_lines

_COLOURS = ("cyan", "green", "magenta", "blue", "yellow", "bright_cyan", "bright_green", "bright_magenta")
_POLL_S = 0.2
_LINES_OF_ALL = 10

Name = Annotated[
    str | None,
    typer.Argument(metavar="[NAME]", help="Whose log: replica-1, worker-1, nginx, mongo, redis, supervisor."),
]
Follow = Annotated[
    bool, typer.Option("--follow", "-f", help="Go on with what is written from now on, until Ctrl-C.")
]
Lines = Annotated[
    int, typer.Option("--lines", "-n", min=0, metavar="COUNT", help="How many lines from the end of the log.")
]


def logs(name: Name = None, *, follow: Follow = False, lines: Lines = 100, data: DataOption = None) -> None:
    """Show the end of one process's log, or a few lines of every one.

    Works whether or not the cluster runs. 'supervisor' tells what was started, what died and what was done
    about it.

    Example: ./cargoflow logs replica-2 -f
    """
    layout = Layout.at(data)
    paths = {path.stem: path for path in sorted(layout.logs.glob("*.log"))}
    if name is not None:
        if name not in paths:
            raise CommandFailedError(
                f"there is no log of {name!r}; there are: {', '.join(paths) or 'none yet'}"
            )
        paths = {name: paths[name]}
    show = _Printer(list(paths), prefixed=name is None)
    following = [_Follower(owner, path) for owner, path in paths.items()] if follow else []
    for owner, path in paths.items():
        for line in last_lines(path, lines if name else min(lines, _LINES_OF_ALL)):
            show(owner, line)
    while following:
        for follower in following:
            for line in follower.new_lines():
                show(follower.name, line)
        time.sleep(_POLL_S)


class _Printer:
    def __init__(self, names: list[str], *, prefixed: bool) -> None:
        self._out = console()
        self._prefixes = dict.fromkeys(names, "")
        if prefixed:
            width = max(map(len, names), default=0)
            self._prefixes = {
                name: f"[{_COLOURS[index % len(_COLOURS)]}]{name:{width}}[/] "
                for index, name in enumerate(names)
            }

    def __call__(self, name: str, line: str) -> None:
        self._out.print(self._prefixes[name] + escape(line))


class _Follower:
    """Reads what is appended to a log from now on, also after it was rotated."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self._path = path
        self._stack = ExitStack()
        self._log = self._open()
        self._log.seek(0, 2)
        self._unfinished = b""

    def new_lines(self) -> Iterator[str]:
        """Return the complete lines written since the last call."""
        yield from self._read()
        if self._path.exists() and self._path.stat().st_ino != self._inode:
            self._stack.close()
            self._log = self._open()
            yield from self._read()

    def _read(self) -> list[str]:
        *complete, self._unfinished = (self._unfinished + self._log.read()).split(b"\n")
        return [line.decode(errors="replace") for line in complete]

    def _open(self) -> BufferedReader:
        log = self._stack.enter_context(self._path.open("rb"))
        self._inode = self._path.stat().st_ino
        return log
