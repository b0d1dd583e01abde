"""`/api-keys`: credentials for programs, which act as the user who made them."""

from fastapi import Response
from fastapi.responses import Response as EmptyResponse

from app.features.auth import service
from app.features.auth.dependencies import LoggedInCaller
from app.features.auth.schemas import ApiKeyOut, CreatedApiKey, NewApiKey
from app.http.admission import Caller, Kit
from app.http.responses import JsonResponse
from app.http.routing import ApiRouter
from app.http.schemas import Page
from app.state.api_keys import ApiKey

router = ApiRouter(prefix="/api-keys", tags=["Auth"])

_NO_STORE = {"Cache-Control": "no-store"}


@router.post("", status_code=201, response_model=CreatedApiKey, summary="Make an API key")
async def create_api_key(body: NewApiKey, kit: Kit, caller: LoggedInCaller) -> Response:
    """Return the key with its secret, which is shown this once."""
    key, text = await service.create_api_key(kit, caller, name=body.name, tier=body.tier)
    created = CreatedApiKey(id=key.id, name=key.name, tier=key.tier, created_at=key.created_at, key=text)
    return JsonResponse(created, status_code=201, headers=_NO_STORE)


@router.get("", response_model=Page[ApiKeyOut], summary="List my API keys")
async def list_api_keys(kit: Kit, caller: Caller) -> Response:
    """List all of the caller's keys, oldest first. There are few: the list is one page."""
    keys = await kit.api_keys.all_of(tenant_id=caller.tenant_id, user_id=caller.user_id)
    return JsonResponse({"items": [_shown(key) for key in keys], "next_cursor": None}, headers=_NO_STORE)


@router.delete("/{key_id}", status_code=204, summary="Delete an API key")
async def delete_api_key(key_id: str, kit: Kit, caller: Caller) -> Response:
    """Delete one of the caller's own keys: every replica refuses it from now on."""
    await kit.api_keys.delete(tenant_id=caller.tenant_id, user_id=caller.user_id, key_id=key_id)
    return EmptyResponse(status_code=204)


def _shown(key: ApiKey) -> ApiKeyOut:
    return ApiKeyOut(id=key.id, name=key.name, tier=key.tier, created_at=key.created_at)
