"""One worker process (`python -m app.worker`): runs jobs, ticks the schedule, and tidies up after the dead.

On SIGTERM or SIGINT it claims nothing more, lets what runs finish for DRAIN_TIMEOUT_S, hands back the rest,
and exits 0. With a store gone it waits and tries again. Any number of workers share the work. A wrong
environment is one line on stderr and exit status 78.
"""

import asyncio
import logging
import signal
import sys
from collections.abc import Sequence
from typing import Final

from app.core.logging import configure_logging
from app.core.settings import Settings, SettingsError, load_settings
from app.features.auth import jobs as auth
from app.features.bookings import jobs as bookings
from app.features.chat import jobs as chat
from app.features.credit import store as credit
from app.features.disbursements import jobs as disbursements
from app.features.disbursements.gateway import Gateway
from app.features.disbursements.opened import open_gateway
from app.features.ledger import jobs as ledger
from app.features.ledger import sealing
from app.features.scans import jobs as scans
from app.features.scoring import jobs as scoring
from app.state import schedule
from app.state.job_run import Handler
from app.state.job_worker import work_on_jobs
from app.state.kit import StateKit, open_kit
from app.state.schedule import Scheduled

_log = logging.getLogger("cargoflow.worker")

EXIT_SETTINGS: Final = 78
"""EX_CONFIG of sysexits.h."""

OUTBOXES: Final = (bookings.COLLECTION, chat.COLLECTION, credit.COLLECTION, schedule.COLLECTION)
"""Collections whose documents have an outbox: what dead processes left there is relayed."""
CRON_TABLE: Final[Sequence[Scheduled]] = ()


def handlers(kit: StateKit, gateway: Gateway | None) -> list[Handler]:
    """Return every feature's handlers."""
    return [
        *auth.handlers(kit),
        *bookings.handlers(kit),
        *chat.handlers(kit),
        *disbursements.handlers(kit, gateway),
        *ledger.handlers(kit),
        *scans.handlers(kit),
        *scoring.handlers(kit),
    ]


async def work(settings: Settings, stop: asyncio.Event) -> None:
    """Do all that a worker does until `stop` is set, then drain."""
    async with (
        open_kit(settings, kind="worker", draining=stop.is_set) as kit,
        open_gateway(kit) as gateway,
        asyncio.TaskGroup() as tasks,
    ):
        tidying = [
            tasks.create_task(kit.locks.sweep_forever()),
            tasks.create_task(kit.idempotency.forget_expired_forever()),
            tasks.create_task(kit.files.tidy_forever()),
            tasks.create_task(sealing.look_forever(kit)),
        ]
        _log.info("worker_started")
        await work_on_jobs(kit, stop, handlers=handlers(kit, gateway), outboxes=OUTBOXES, table=CRON_TABLE)
        for task in tidying:
            task.cancel()
        _log.info("worker_stopped")


async def _run(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await work(settings, stop)


def main() -> int:
    """Work until told to stop and return the exit status."""
    try:
        settings = load_settings()
    except SettingsError as error:
        sys.stderr.write(f"cargoflow: {error}\n")
        return EXIT_SETTINGS
    sink = configure_logging(settings.log_level, process_fields={"worker": settings.replica_name})
    try:
        asyncio.run(_run(settings))
    finally:
        sink.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
