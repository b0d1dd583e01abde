"""`./cargoflow migrate`: the stored data brought to what this version of the code expects.

Safe while replicas serve, twice, at the same time from two machines, and cut short anywhere: each step is
idempotent by itself. Replicas make missing indexes as they start, too; over much data that takes longer than
one of them waits, and then this is the way.
"""

from app.core.clock import SystemClock
from app.core.metrics import Metrics
from app.core.settings import Settings
from app.state.documents import give_versions
from app.state.indexes import ensure_indexes
from app.state.mongo import MongoStore
from app.state.store_clock import StoreClock

PATIENCE_S = 3600.0
"""How long one step may take; building an index reads the whole collection."""


async def migrate(settings: Settings) -> str:
    """Make every index there is to make and return a line for each collection, for people.

    Raises StoreUnavailableError if MongoDB can't be reached; what was done so far stays done.
    """
    metrics = Metrics()
    await _reach(settings, metrics)
    patient = settings.model_copy(update={"mongo_timeout_s": PATIENCE_S})
    mongo = MongoStore(patient, StoreClock(SystemClock()), metrics, prepare=ensure_indexes)
    try:
        async with mongo.guard("migrate"):
            await ensure_indexes(mongo)
            await give_versions(mongo, ("sessions", "tenants", "users"))
            lines = [
                f"{name}: {', '.join(sorted(await mongo.collection(name).index_information()))}"
                for name in sorted(await mongo.database.list_collection_names())
                if not name.startswith("system.")
            ]
    finally:
        mongo.close()
    return "\n".join(["Indexes are in place.", *lines])


async def _reach(settings: Settings, metrics: Metrics) -> None:
    """Raise StoreUnavailableError soon, instead of waiting for an hour for a MongoDB that is not there."""
    mongo = MongoStore(settings, StoreClock(SystemClock()), metrics, prepare=ensure_indexes)
    try:
        async with mongo.guard("migrate.ping"):
            await mongo.database.command("ping")
    finally:
        mongo.close()
