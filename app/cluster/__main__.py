"""The supervisor as a daemon: `python -m app.cluster PLAN LOCK_FD REPORT_FD`.

Started by `./cargoflow up --detach` alone. It inherits the cluster's lock and a pipe, on which it reports its
start in the words of the control socket (`control.py`). Its own output is `supervisor.log`.
"""

import asyncio
import contextlib
import os
import sys
from io import FileIO

from app.cluster.control import ControlError, encode, failure_line
from app.cluster.events import Announcer, Event
from app.cluster.failures import StartFailedError
from app.cluster.lock import ClusterLock
from app.cluster.plan import Plan
from app.cluster.supervisor import Supervisor
from app.core.clock import SystemClock


class Report:
    """The pipe to the waiting `up`.

    It is over with the first result or error, or when nobody reads it any more.
    """

    def __init__(self, descriptor: int) -> None:
        """Take over the writing end."""
        os.set_inheritable(descriptor, False)  # noqa: FBT003  # positional only
        self._pipe: FileIO | None = FileIO(descriptor, "w")

    def event(self, event: Event) -> None:
        """Pass on an event."""
        self._write(encode("event", event.as_json()))

    def last(self, line: bytes) -> None:
        """Write the final line and close the pipe."""
        self._write(line)
        if self._pipe:
            self._pipe.close()
            self._pipe = None

    def _write(self, line: bytes) -> None:
        if self._pipe:
            try:
                self._pipe.write(line)
            except OSError:
                self._pipe = None


async def _supervise(plan: Plan, report: Report) -> None:
    clock = SystemClock()
    with (
        contextlib.closing(Announcer(plan.layout.log("supervisor"), clock)) as announcer,
        announcer.heard_by(report.event),
    ):
        try:
            await Supervisor(plan, os.environ, announcer, clock).run(
                lambda status: report.last(encode("result", status))
            )
        except StartFailedError as failure:
            report.last(failure_line(failure))
        else:
            report.last(failure_line(ControlError("the cluster was stopped before it was ready")))


def main(arguments: list[str]) -> None:
    """Run the daemon until the cluster is stopped."""
    lock = ClusterLock(int(arguments[1]))
    asyncio.run(_supervise(Plan.from_json(arguments[0]), Report(int(arguments[2]))))
    lock.release()


if __name__ == "__main__":
    main(sys.argv[1:])
