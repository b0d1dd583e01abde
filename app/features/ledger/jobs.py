"""What workers do for the ledger: they seal it."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from app.features.ledger import sealing
from app.state.job_run import Handler, Run
from app.state.kit import StateKit


def handlers(kit: StateKit) -> list[Handler]:
    """Return the handlers of this feature."""
    return [
        Handler(
            sealing.SEAL,
            partial(_seal, kit),
            lease_s=sealing.LEASE_S,
            backoff_first_s=1.0,
            backoff_longest_s=5.0,
        )
    ]


async def _seal(kit: StateKit, run: Run) -> Mapping[str, Any]:
    """Seal what the tenant has unsealed. Idempotent: what is sealed is not found again."""
    return {"sealed": await sealing.seal(kit, run.job.payload["tenant_id"])}
