"""The sums of `/cache-stats`."""

from collections.abc import Mapping

from app.features.operations.schemas import CacheStats
from app.state.cache import LOAD_FAILED

_HIT = "hit"


def summarise(by_kind: Mapping[str, Mapping[str, int]]) -> CacheStats:
    """Add up what the cluster counted, given by kind of document and outcome."""
    reads = sum(sum(outcomes.values()) - outcomes.get(LOAD_FAILED, 0) for outcomes in by_kind.values())
    hits = sum(outcomes.get(_HIT, 0) for outcomes in by_kind.values())
    return CacheStats(
        hits=hits,
        reads=reads,
        hit_ratio=round(hits / reads, 4) if reads else None,
        by_kind={kind: dict(outcomes) for kind, outcomes in by_kind.items()},
    )
