"""The scenario `reviewers`: a thousand of them connected, who work on the same two hundred applications."""

import json
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bench.applications import make_applications
from bench.client import run_client
from bench.measure import MeasurementError
from bench.reviewers_client import INTERVAL_S
from bench.rig import Target
from bench.scenario import World

USERS = 1000
APPLICATIONS = 200
NAME = "reviewers"
P95_BAR_MS = 250
ERRORS_BAR = 0.01


@dataclass(frozen=True, slots=True)
class Reviewers:
    """What came of it. `requests` are reads and decisions, `conflicts` decisions that came too late; `errors`
    everything that is neither an answer 200 nor a conflict.
    """

    users: int
    applications: int
    seconds: int
    requests: int
    accepted: int
    conflicts: int
    errors: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    cpu_ms: float


async def measure_reviewers(world: World, target: Target, folder: Path, *, seconds: int) -> Reviewers:
    """Run it for that many seconds, at least one act of each. Raises MeasurementError."""
    seconds = max(seconds, INTERVAL_S)
    pile = await make_applications(world, APPLICATIONS)
    users = world.users[:USERS]
    address = urlsplit(target.url)
    file = folder / f"{NAME}.json"
    plan = {
        "host": address.hostname,
        "port": address.port,
        "seconds": seconds,
        "tokens": [user.token for user in users],
        "applications": [document["_id"] for document in pile],
    }
    file.write_text(json.dumps(plan))
    before = target.cpu_s()
    seen = await run_client("bench.reviewers_client", file, seconds=INTERVAL_S + seconds)
    after = target.cpu_s()
    if before.keys() != after.keys():
        raise MeasurementError("a replica died under load and was started again; its log says why")
    asked = seen.pop("asked")
    spent_ms = (sum(after.values()) - sum(before.values())) * 1000
    return Reviewers(len(users), len(pile), seconds, **seen, cpu_ms=spent_ms / asked)
