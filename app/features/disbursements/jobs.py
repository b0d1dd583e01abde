"""What workers do for loans: they grant what was approved, and find out how payments ended."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from app.features.credit.service import GRANT
from app.features.disbursements import service
from app.features.disbursements.gateway import Gateway
from app.state.job_run import Handler, Run
from app.state.kit import StateKit

ATTEMPTS_MAX: Final = 10_000
"""A month and more of asking: who paid is not given up on."""
_LONGEST_PAUSE_S: Final = 300.0


def handlers(kit: StateKit, gateway: Gateway | None) -> list[Handler]:
    """Return the handlers of this feature."""
    return [
        Handler(GRANT, partial(_grant, kit)),
        Handler(
            service.RESOLVE,
            partial(_resolve, kit, gateway),
            attempts_max=ATTEMPTS_MAX,
            crashes_max=ATTEMPTS_MAX,
            backoff_first_s=2.0,
            backoff_longest_s=_LONGEST_PAUSE_S,
        ),
    ]


async def _grant(kit: StateKit, run: Run) -> Mapping[str, Any]:
    """Idempotent: the transfer is called after the application."""
    job = run.job
    return {"granted": await service.grant(kit, job.tenant_id, job.payload["application_id"])}


async def _resolve(kit: StateKit, gateway: Gateway | None, run: Run) -> Mapping[str, Any]:
    """Idempotent: under the loan's lock, by its state. Fails, to be tried again, while the answer is open."""
    job = run.job
    return {"state": await service.resolve(kit, gateway, job.tenant_id, job.payload["application_id"])}
