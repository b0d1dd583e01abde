"""What the supervisor says while it works, and who hears it.

An event is one line for a person: about whom, how far, and what. The supervisor's log gets every one; the
terminal of a foreground `up` and whoever waits on the control socket get those said while they listen.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from app.cluster.log_files import open_for_append
from app.core.clock import Clock

State: TypeAlias = Literal["busy", "done", "note", "fail"]
"""`busy`:

under way, a `done` or `fail` of the same subject follows. `note`: worth knowing, nothing follows.
"""


@dataclass(frozen=True)
class Event:
    """One thing that happened to one subject: a process by name, or `cluster`."""

    subject: str
    state: State
    text: str

    def as_json(self) -> dict[str, Any]:
        """Return the event as it goes over the control socket."""
        return asdict(self)


Listener: TypeAlias = Callable[[Event], None]


class Announcer:
    """Passes every event on to the supervisor's log and to all who listen.

    A listener must not block and must not raise.
    """

    def __init__(self, log: Path, clock: Clock) -> None:
        self._log = open_for_append(log)
        self._clock = clock
        self._listeners: list[Listener] = []

    def say(self, subject: str, state: State, text: str) -> None:
        """Tell everybody."""
        event = Event(subject, state, text)
        stamp = self._clock.now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        with contextlib.suppress(OSError):  # a full disk must not end the cluster
            self._log.write(f"{stamp} {state:4} {subject}: {text}\n".encode())
        for listener in tuple(self._listeners):
            listener(event)

    @contextlib.contextmanager
    def heard_by(self, listener: Listener) -> Iterator[None]:
        """Let `listener` hear what is said inside the block."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    def close(self) -> None:
        """Close the log."""
        self._log.close()
