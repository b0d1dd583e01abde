"""The scenario `steady`: a thousand users at one request a second each, and what replicas weigh meanwhile."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from bench.carts import make_carts
from bench.client import run_client
from bench.measure import MeasurementError
from bench.rig import Target
from bench.scenario import World
from bench.steady_client import RAMP_S

USERS = 1000
NAME = "steady"
P95_BAR_MS = 200
RSS_BAR_MB = 150
_WEIGH_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Steady:
    """What came of it. Memory is that of the heaviest replica: over the first and the last third of the run
    (medians), and at its highest.
    """

    users: int
    seconds: int
    requests: int
    errors: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    cpu_ms: float
    rss_first_mb: float
    rss_last_mb: float
    rss_max_mb: float


async def measure_steady(world: World, target: Target, folder: Path, *, seconds: int) -> Steady:
    """Run it for that many seconds. Raises MeasurementError."""
    carts = await make_carts(world, world.users[:USERS])
    address = urlsplit(target.url)
    file = folder / f"{NAME}.json"
    plan = {
        "host": address.hostname,
        "port": address.port,
        "seconds": seconds,
        "users": [[user.token, session.id] for user, session in carts],
    }
    file.write_text(json.dumps(plan))
    samples_mb: list[float] = []
    before = target.cpu_s()
    weighing = asyncio.create_task(_weigh(target, samples_mb))
    try:
        seen = await run_client("bench.steady_client", file, seconds=RAMP_S + seconds)
    finally:
        weighing.cancel()
    after = target.cpu_s()
    if before.keys() != after.keys():
        raise MeasurementError("a replica died under load and was started again; its log says why")
    third = max(1, len(samples_mb) // 3)
    return Steady(
        users=len(carts),
        seconds=seconds,
        **seen,
        cpu_ms=(sum(after.values()) - sum(before.values())) * 1000 / seen["requests"],
        rss_first_mb=median(samples_mb[:third]),
        rss_last_mb=median(samples_mb[-third:]),
        rss_max_mb=max(samples_mb),
    )


async def _weigh(target: Target, samples_mb: list[float]) -> None:
    while True:
        samples_mb.append(max(target.rss_mb()))
        await asyncio.sleep(_WEIGH_EVERY_S)
