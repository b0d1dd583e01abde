"""What the commands show to a person: progress as it happens, the running cluster, and failures."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from app.cluster.addresses import without_password
from app.cluster.events import Event

if TYPE_CHECKING:
    from app.features.admin.vitals import Vitals  # brings the stores' clients along: only for who needs them

_MARKS = {"done": "[green]✓[/]", "note": "[yellow]•[/]", "fail": "[red]✗[/]"}
_NAME_WIDTH = 11


class CommandFailedError(Exception):
    """A command could not do what it was asked for.

    One line; `log` holds the last lines of the log that explains it.
    """

    def __init__(self, message: str, log: list[str] | None = None) -> None:
        super().__init__(message)
        self.log = log or []


def console(*, stderr: bool = False) -> Console:
    """Return a console that leaves text as it is: no wrapping, no colouring of numbers."""
    return Console(stderr=stderr, highlight=False, soft_wrap=True)


class LastingConsole(Console):
    """Standard output for a process that goes on when nobody reads it any more (`./cargoflow up | head`)."""

    def __init__(self) -> None:
        super().__init__(highlight=False, soft_wrap=True)

    def on_broken_pipe(self) -> None:
        """Fall silent; rich would end the process."""
        with contextlib.suppress(SystemExit):
            super().on_broken_pipe()


class Progress:
    """Shows events: what is finished as a line, what is under way next to a spinner (on a terminal only)."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._spinner: Status | None = None
        self._busy: dict[str, str] = {}

    def hear(self, event: Event) -> None:
        """Show one event. A terminal that has gone away is no reason to fail: the cluster runs on."""
        with contextlib.suppress(OSError):
            self._show(event)

    def stop(self) -> None:
        """Take the spinner away."""
        self._busy.clear()
        with contextlib.suppress(OSError):
            self._show_busy()

    def _show(self, event: Event) -> None:
        if event.state == "busy":
            self._busy[event.subject] = event.text
        else:
            self._busy.pop(event.subject, None)
            if (event.subject, event.state) != ("cluster", "fail"):  # the command's own last line says that
                self._out.print(f"  {_MARKS[event.state]} {event.subject:{_NAME_WIDTH}} {escape(event.text)}")
        self._show_busy()

    def _show_busy(self) -> None:
        if not self._out.is_terminal:
            return
        if self._busy:
            text = ", ".join(f"{subject} {what}" for subject, what in self._busy.items())
            if self._spinner is None:
                self._spinner = self._out.status("")
                self._spinner.start()
            self._spinner.update(f"[dim]{escape(text)} …[/]")
        elif self._spinner:
            self._spinner.stop()
            self._spinner = None


@contextlib.contextmanager
def progress(out: Console) -> Iterator[Progress]:
    """Show progress inside the block."""
    shown = Progress(out)
    try:
        yield shown
    finally:
        shown.stop()


def show_failure(failure: CommandFailedError) -> None:
    """Print why a command failed, and what the log says, to standard error."""
    err = console(stderr=True)
    err.print(f"[bold red]✗[/] {escape(str(failure))}")
    for line in failure.log:
        err.print(f"    [dim]{escape(line)}[/]")


def show_addresses(out: Console, status: dict[str, Any]) -> None:
    """Print where a running cluster is reached."""
    url = status["url"]
    rows = [("App", url), ("API docs", f"{url}/docs"), ("Metrics", f"{url}/metrics")]
    rows += [(replica["name"], replica["url"]) for replica in status["replicas"]]
    out.print()
    for name, address in rows:
        out.print(f"  {name:{_NAME_WIDTH}} [cyan]{address}[/]")
    out.print()


def show_status(out: Console, status: dict[str, Any]) -> None:
    """Print what runs as a table. Passwords in the stores' addresses are masked."""
    running, restarting = ("green", "running"), ("yellow", "being restarted")
    rows = [("nginx", status["nginx"]["pid"], running, status["url"])]
    rows += [
        (
            replica["name"],
            replica["pid"],
            ("green", "ready") if replica["ready"] else ("yellow", "not ready"),
            replica["url"],
        )
        for replica in status["replicas"]
    ]
    rows += [(worker["name"], worker["pid"], running, "") for worker in status["workers"]]
    for name, store in status["stores"].items():
        state = ("blue", "run by others") if name in status["external"] else running
        rows.append((name, store["pid"], state, without_password(store.get("uri") or store["url"])))
    out.print(f"[bold]{'NAME':{_NAME_WIDTH}} {'PID':>7}  {'STATE':15}  ADDRESS[/]")
    for name, pid, state, address in rows:
        colour, words = restarting if pid is None and state[0] != "blue" else state
        out.print(f"{name:{_NAME_WIDTH}} {pid or '-':>7}  [{colour}]{words:15}[/]  {escape(address)}")


def show_vitals(out: Console, vitals: "Vitals") -> None:
    """Print what the stores know: each process's heartbeat and connections, waiting jobs, locks."""
    out.print(
        f"\n[bold]{'NAME':{_NAME_WIDTH}} {'BEAT':>8}  {'IN HAND':>7}  CONNECTIONS IN USE, OPEN, ALLOWED[/]"
    )
    for process in vitals.processes:
        pools = ", ".join(
            f"{store} {pool['in_use']}/{pool['open']}/{pool['max']}" for store, pool in process.pools.items()
        )
        leaving = "  [yellow]draining[/]" if process.draining else ""
        beat = f"{process.beat_age_ms} ms"
        out.print(f"{process.name:{_NAME_WIDTH}} {beat:>8}  {process.in_flight:>7}  {pools}{leaving}")
    out.print(f"\n[bold]{'JOBS':24} {'READY':>7} {'LATER':>7}  OLDEST[/]")
    for job_type, depth in sorted(vitals.queues.items()):
        out.print(f"{escape(job_type):24} {depth.ready:>7} {depth.later:>7}  {depth.oldest_s:.0f} s")
    if not vitals.queues:
        out.print("none were ever enqueued")
    out.print("\n[bold]LOCKS[/]")
    for lock in vitals.locks:
        out.print(
            f"{escape(lock.name)}, token {lock.token}, held by {lock.holder} since {lock.since:%H:%M:%S} UTC"
        )
    if not vitals.locks:
        out.print("none is held")
