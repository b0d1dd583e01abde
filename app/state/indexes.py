"""Every index of every collection: the invariants that live in unique indexes, and what queries need.

`ensure_indexes` is safe while serving and twice; with nothing to do it costs a few milliseconds. A replica is
not ready before it has run (`mongo`), since "one address, one user" would not hold without its index.
Building an index over much data takes longer than a replica waits: `./cargoflow migrate` does that.
"""

from app.state import (
    accounts,
    api_keys,
    files,
    idempotency,
    job_pauses,
    jobs,
    locks,
    logins,
    schedule,
    sessions,
)
from app.state.feature_indexes import FEATURES
from app.state.mongo import MongoStore

_OWNERS = (accounts, api_keys, files, idempotency, job_pauses, jobs, locks, logins, schedule, sessions)


async def ensure_indexes(mongo: MongoStore) -> None:
    """Create what is missing. Raises pymongo's errors."""
    for owner in _OWNERS:
        await owner.ensure_indexes(mongo)
    for name, indexes in FEATURES.items():
        await mongo.collection(name).create_indexes(list(indexes))
