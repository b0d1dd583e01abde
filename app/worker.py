"""One worker process (`python -m app.worker`): delivers mails, frees what dead holders of locks left, and
removes expired idempotency keys.

On SIGTERM or SIGINT it finishes the mail it is at and exits 0. With a store gone it waits and tries again.
Any number of workers share the work. A wrong environment is one line on stderr and exit status 78.
"""

import asyncio
import logging
import random
import signal
import sys
from contextlib import suppress
from typing import Final

from app.core.errors import StoreUnavailableError
from app.core.logging import configure_logging
from app.core.settings import Settings, SettingsError, load_settings
from app.features.auth.mail import Postman
from app.state.kit import open_kit

_log = logging.getLogger("cargoflow.worker")

EXIT_SETTINGS: Final = 78
"""EX_CONFIG of sysexits.h."""
POLL_INTERVAL_S: Final = 1.0


async def work(settings: Settings, stop: asyncio.Event) -> None:
    """Deliver mails that are due, and sweep locks, until `stop` is set."""
    async with open_kit(settings, kind="worker", draining=stop.is_set) as kit, asyncio.TaskGroup() as tasks:
        tidying = [
            tasks.create_task(kit.locks.sweep_forever()),
            tasks.create_task(kit.idempotency.forget_expired_forever()),
        ]
        postman = Postman(kit)
        _log.info("worker_started")
        while not stop.is_set():
            try:
                found = await postman.deliver_next()
            except StoreUnavailableError:
                found = False
            if not found:
                await _pause(stop)
        for task in tidying:
            task.cancel()
        _log.info("worker_stopped")


async def _pause(stop: asyncio.Event) -> None:
    """Wait for the next look, or until told to stop. Spread out, so that workers don't ask in step."""
    with suppress(TimeoutError):
        async with asyncio.timeout(POLL_INTERVAL_S * random.uniform(0.75, 1.25)):  # noqa: S311  # no secret
            await stop.wait()


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
