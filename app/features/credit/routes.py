"""`/applications`: their owner's, and for underwriters and admins the whole tenant's."""

from functools import partial
from typing import Annotated

from fastapi import Depends, Query, Response

from app.features.credit import batch, lists, service
from app.features.credit.assignment import assign
from app.features.credit.documents import EVENTS_MAX, shown, shown_event
from app.features.credit.schemas import (
    ApplicationEvent,
    ApplicationOut,
    ApplicationPage,
    Assignment,
    BatchResults,
    BatchUpdate,
    Decision,
    NewApplication,
)
from app.features.credit.store import REVIEWERS, ApplicationStore, Sort, scope_of
from app.features.credit.transitions import Status
from app.http.admission import Caller, Kit, requires
from app.http.etags import IfMatch, WriteCondition, etag
from app.http.idempotency import KeyedCall, created, keyed_caller
from app.http.paging import LIMIT_DEFAULT, PageCursor, PageLimit, decode_cursor, page_of
from app.http.responses import JsonResponse, encode
from app.http.routing import ApiRouter
from app.http.schemas import Page
from app.state.keyed import Answer
from app.state.kit import StateKit
from app.state.mongo import Document
from app.state.principals import Principal

router = ApiRouter(prefix="/applications", tags=["Credit"])

ApplicantsCall = Annotated[KeyedCall, Depends(keyed_caller(*service.APPLICANTS, within="applications"))]
ReviewersCall = Annotated[KeyedCall, Depends(keyed_caller(*REVIEWERS))]
Reviewer = Annotated[Principal, Depends(requires(*REVIEWERS))]


async def _store(kit: Kit) -> ApplicationStore:
    return ApplicationStore(kit)


Store = Annotated[ApplicationStore, Depends(_store)]


@router.post("", status_code=201, response_model=ApplicationOut, summary="Apply for credit")
async def submit_application(body: NewApplication, kit: Kit, call: ApplicantsCall) -> Response:
    """Apply for trade credit. Scored in the background; decided by an underwriter."""
    return await call.once(
        lambda keyed: service.submit(kit, call.principal, body, keyed), answer_of=partial(submitted, kit)
    )


@router.get("", response_model=ApplicationPage, summary="List applications")
async def list_applications(
    *,
    kit: Kit,
    caller: Caller,
    page: Annotated[int, Query(ge=1, le=lists.PAGE_MAX, description="From 1 on.")] = 1,
    limit: PageLimit = LIMIT_DEFAULT,
    status: Annotated[Status | None, Query(description="Only those that are this.")] = None,
    reviewer: Annotated[
        str | None,
        Query(
            min_length=1,
            max_length=64,
            description="Only those that this user looks after: `me`, `none`, or an id.",
        ),
    ] = None,
    sort: Annotated[Sort, Query(description="By what; with a minus, the largest or newest first.")] = (
        "-created_at"
    ),
) -> Response:
    """List the caller's applications, or for underwriters and admins the tenant's.

    Above a thousand, `total` may be ten seconds old. What is applied for meanwhile moves the pages.
    """
    wanted = lists.Wanted(page=page, limit=limit, sort=sort, status=status, reviewer=reviewer)
    return JsonResponse(await lists.page(kit, caller, wanted))


@router.post("/batch-update", response_model=BatchResults, summary="Decide on several applications")
async def update_applications(body: BatchUpdate, kit: Kit, call: ReviewersCall) -> Response:
    """Decide the same about up to a hundred applications, each checked by its own version.

    Each is decided whole or not at all, and the answer says of each which. Repeated with the same
    Idempotency-Key it decides what is still undecided, if the first one died, and answers what that would
    have.
    """
    return await call.once(lambda keyed: batch.update(kit, call.principal, body, keyed), answer_of=_results)


@router.get("/{application_id}", response_model=ApplicationOut, summary="Read an application")
async def read_application(application_id: str, caller: Caller, store: Store) -> Response:
    """Show an application."""
    return _answer(await store.get(scope_of(caller), application_id))


@router.get(
    "/{application_id}/history", response_model=Page[ApplicationEvent], summary="Read who decided what"
)
async def list_history(
    *,
    application_id: str,
    caller: Caller,
    store: Store,
    cursor: PageCursor = None,
    limit: PageLimit = LIMIT_DEFAULT,
) -> Response:
    """List what happened to an application, oldest first: each change with its version, author and note."""
    kind = "application_history"
    position = decode_cursor(kind, cursor, (int,))
    after = 0 if position is None else min(max(int(position[0]), 0), EVENTS_MAX)
    found = await store.events(scope_of(caller), application_id, after=after, limit=limit + 1)
    rows = page_of(found, limit=limit, kind=kind, position_of=lambda event: (event["version"],))
    return JsonResponse({**rows, "items": [shown_event(event) for event in rows["items"]]})


@router.put("/{application_id}", response_model=ApplicationOut, summary="Decide on an application")
async def decide_application(
    *, application_id: str, body: Decision, kit: Kit, caller: Reviewer, if_match: IfMatch
) -> Response:
    """Send an application on, or add a note to it while its status stays.

    Of all who name the same version one succeeds. `409 invalid_transition`, with what is allowed, for a step
    that there is not. After an answer that was lost, repeat it: a conflict means that somebody's decision is
    there, and the history says whose.
    """
    condition = WriteCondition(if_match, body.version)
    return _answer(await service.decide(kit, caller, application_id, body, check_version=condition.check))


@router.post("/{application_id}/assign", response_model=ApplicationOut, summary="Take an application on")
async def assign_application(
    *, application_id: str, body: Assignment, kit: Kit, caller: Reviewer, if_match: IfMatch
) -> Response:
    """Look after an application, or have a colleague do so, which is for admins to say.

    It tells others that somebody is at it, and forbids them nothing.
    """
    condition = WriteCondition(if_match, body.version)
    return _answer(await assign(kit, caller, application_id, body, check_version=condition.check))


def submitted(kit: StateKit, document: Document) -> Answer:
    """Return the answer to whoever made this application."""
    location = f"{kit.settings.base_path}/applications/{document['_id']}"
    return created(shown(document), location=location, version=document["version"])


def _results(results: list[batch.Result]) -> Answer:
    return Answer(200, encode({"results": results}))


def _answer(document: Document) -> Response:
    return JsonResponse(shown(document), headers={"ETag": etag(document["version"])})
