"""`./cargoflow status --live`: the whole installation as its stores know it, for whoever runs it.

Unlike `GET /admin/cluster`, which a tenant's admin sees, this is of all tenants, and names things.
"""

from dataclasses import dataclass

from app.core.errors import StoreUnavailableError
from app.core.moments import to_milliseconds
from app.core.settings import Settings
from app.state.job_index import Depth
from app.state.kit import open_kit
from app.state.locks import Holding
from app.state.processes import Process


@dataclass(frozen=True, slots=True)
class Vitals:
    """Processes by heartbeat, waiting jobs by type, and locks that are held, longest first."""

    processes: list[Process]
    queues: dict[str, Depth]
    locks: list[Holding]


async def vitals(settings: Settings) -> Vitals:
    """Ask both stores. Raises StoreUnavailableError if one of them does not answer."""
    found: Vitals | None = None
    async with open_kit(settings) as kit:
        await kit.mongo.probe()  # which sets the clock that leases are compared with
        if kit.mongo.health.status == "pass":
            try:
                found = Vitals(
                    [process for process in await kit.processes.alive() if process.kind != "command"],
                    await kit.job_index.depths(now_ms=to_milliseconds(kit.clock.now())),
                    await kit.locks.held(),
                )
            except StoreUnavailableError as error:
                unavailable = error
        else:
            unavailable = StoreUnavailableError("MongoDB")
    if found is None:
        raise unavailable  # outside of the kit, whose tasks would wrap it in a group
    return found
