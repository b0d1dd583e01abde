"""What a worker does for scores: it reckons one when an application is made, or more is known of it.

The inputs are read, and the score is written, in the transaction that completes the job. The application
itself is not touched: neither its status nor its version.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from app.core.errors import NotFoundError
from app.features.credit.service import SCORE
from app.features.scoring.store import ScoreMovedError, ScoreStore
from app.state.job_run import Handler, Run
from app.state.kit import StateKit
from app.state.mongo import ClientSession


def handlers(kit: StateKit) -> list[Handler]:
    """Return the handlers of this feature."""
    return [Handler(SCORE, partial(_score, kit), concurrency=2)]


async def _score(kit: StateKit, run: Run) -> Mapping[str, Any] | None:
    store, application_id = ScoreStore(kit), run.job.payload["application_id"]

    async def work(session: ClientSession) -> None:
        await store.reckon(run.job.tenant_id, application_id, session)

    while True:
        try:
            await run.commit(work, result={"application_id": application_id})
        except NotFoundError:
            return {"application_id": application_id, "scored": False}
        except ScoreMovedError:
            continue
        return None
