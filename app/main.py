"""A replica: the application, and the process that serves it (`python -m app.main`)."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from fastapi import FastAPI

from app.core.clock import Clock, SystemClock
from app.core.logging import configure_logging
from app.core.metrics import Metrics
from app.core.settings import Settings, SettingsError, load_settings
from app.features.addresses.routes import router as addresses
from app.features.admin.cluster_routes import router as cluster
from app.features.auth.api_key_routes import router as api_keys
from app.features.auth.routes import router as auth
from app.features.bookings.draft_routes import router as drafts
from app.features.bookings.routes import router as bookings
from app.features.chat.chat import TOOLS, open_chat
from app.features.chat.mcp import open_mcp
from app.features.chat.mcp import router as mcp
from app.features.chat.routes import router as chat
from app.features.credit.routes import router as credit
from app.features.disbursements.opened import open_gateway
from app.features.disbursements.routes import router as disbursements
from app.features.jobs.routes import router as jobs
from app.features.ledger.routes import router as ledger
from app.features.operations import docs
from app.features.operations.routes import router as operations
from app.features.scans.routes import router as scans
from app.features.scoring.routes import router as scoring
from app.features.sessions.routes import router as sessions
from app.features.users.routes import router as users
from app.http.application import Api
from app.http.context import log_fields
from app.serve import ListenError, serve
from app.state.kit import open_kit

EXIT_SETTINGS: Final = 78
"""EX_CONFIG of sysexits.h."""
EXIT_UNAVAILABLE: Final = 69
"""EX_UNAVAILABLE."""


def create_app(settings: Settings | None = None, *, clock: Clock | None = None) -> Api:
    """Return the application; its lifespan opens the stores and does not wait for them.

    `clock` replaces the machine's clock. Raises SettingsError when `settings` must be read and can't be.
    """
    chosen = settings or load_settings()
    machine = clock or SystemClock()
    metrics = Metrics(machine)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_kit(
            chosen,
            metrics=metrics,
            machine=machine,
            kind="replica",
            draining=app.state.draining.is_set,
        ) as kit:
            app.state.kit = kit
            async with (
                open_chat(kit, app.state.draining) as app.state.chat,
                open_mcp(kit, TOOLS) as app.state.mcp,
                open_gateway(kit) as app.state.gateway,
            ):
                app.state.optional_services = app.state.chat.services
                yield

    api = Api(settings=chosen, metrics=metrics, clock=machine, lifespan=lifespan)
    api.include_router(operations)
    for feature in (
        auth,
        api_keys,
        users,
        sessions,
        addresses,
        drafts,
        bookings,
        credit,
        scans,
        scoring,
        disbursements,
        ledger,
        chat,
        jobs,
        cluster,
    ):
        api.include_router(feature, prefix=chosen.base_path)
    api.include_router(mcp)
    if chosen.serves_docs:
        api.include_router(docs.router)
    return api


def main() -> int:
    """Serve until told to stop and return the exit status; a wrong environment is one line on stderr."""
    try:
        settings = load_settings()
    except SettingsError as error:
        sys.stderr.write(f"cargoflow: {error}\n")
        return EXIT_SETTINGS
    sink = configure_logging(
        settings.log_level, process_fields={"replica": settings.replica_name}, context_fields=log_fields
    )
    try:
        serve(create_app(settings), settings)
    except ListenError as error:
        sys.stderr.write(f"cargoflow: {error}\n")
        return EXIT_UNAVAILABLE
    finally:
        sink.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
