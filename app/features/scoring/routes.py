"""`/applications/{id}/score`: for those who decide. The applicant does not see it."""

from typing import Annotated, Any, Final

from fastapi import Depends, Response

from app.core.moments import timestamp
from app.features.credit.store import REVIEWERS
from app.features.scoring.schemas import ScoreOut
from app.features.scoring.store import ScoreStore
from app.http.admission import Kit, requires
from app.http.responses import JsonResponse
from app.http.routing import ApiRouter
from app.state.mongo import Document
from app.state.principals import Principal

router = ApiRouter(prefix="/applications/{application_id}/score", tags=["Credit"])

Reviewer = Annotated[Principal, Depends(requires(*REVIEWERS))]
_SHOWN: Final = ("scorecard", "points", "points_max", "suggestion", "reasons", "factors", "revision")


@router.get("", response_model=ScoreOut, summary="Read an application's score")
async def read_score(application_id: str, kit: Kit, caller: Reviewer) -> Response:
    """Show what the scorecard suggests, factor by factor. It decides nothing.

    `404` until the worker has got to it, a second or so after the application was made.
    """
    return JsonResponse(_shown(await ScoreStore(kit).get(caller.tenant_id, application_id)))


def _shown(score: Document) -> dict[str, Any]:
    return {
        "application_id": score["_id"],
        **{name: score[name] for name in _SHOWN},
        "computed_at": timestamp(score["computed_at"]),
    }
