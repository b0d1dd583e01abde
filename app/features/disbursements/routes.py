"""`/applications/{id}/disburse` and `/disbursement`: for underwriters and admins; who applied may look."""

from functools import partial
from typing import Annotated

from fastapi import Depends, Response

from app.features.credit.store import REVIEWERS, scope_of
from app.features.disbursements import service
from app.features.disbursements.opened import OpenedGateway
from app.features.disbursements.schemas import DisbursementOut, NewDisbursement
from app.features.disbursements.store import DisbursementStore
from app.http.admission import Caller, Kit
from app.http.idempotency import KeyedCall, keyed_caller
from app.http.responses import JsonResponse
from app.http.routing import ApiRouter

router = ApiRouter(prefix="/applications", tags=["Credit"])

ReviewersCall = Annotated[KeyedCall, Depends(keyed_caller(*REVIEWERS))]


@router.post(
    "/{application_id}/disburse",
    status_code=201,
    response_model=DisbursementOut,
    responses={202: {"model": DisbursementOut, "description": "The gateway's answer is open; look again."}},
    summary="Pay out an approved application",
)
async def disburse(
    application_id: str, body: NewDisbursement, kit: Kit, call: ReviewersCall, gateway: OpenedGateway
) -> Response:
    """Pay out what was approved, once, whatever dies meanwhile.

    `201` once it is paid. `202` while the gateway's answer is open: it is being asked in the background, and
    `GET …/disbursement` says how it stands. So does the same request, repeated with its `Idempotency-Key`.

    `422` for another amount than was approved; `409 invalid_transition` for what is not approved, or was
    asked for before; `409 lock_held` while somebody is at it; `409 payment_refused` if the gateway refuses:
    it may be asked for anew then. `503 gateway_not_configured` where there is no gateway.
    """
    return await call.once(
        lambda keyed: service.disburse(
            kit, gateway, call.principal, application_id, amount=body.amount, keyed=keyed
        ),
        answer_of=partial(service.answer, kit),
    )


@router.get(
    "/{application_id}/disbursement", response_model=DisbursementOut, summary="Read how a payment stands"
)
async def read_disbursement(application_id: str, kit: Kit, caller: Caller) -> Response:
    """Show the payment of an application, to who applied and to who reviews. 404 before it is asked for."""
    row = await DisbursementStore(kit).get(scope_of(caller), application_id)
    return JsonResponse(service.answer(kit, row).body)
