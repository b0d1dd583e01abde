"""`/users` and `/tenant`: an operator's own people and settings. Other tenants' users don't exist here."""

from typing import Annotated, cast

from fastapi import Depends, Response

from app.core.moments import from_milliseconds, to_milliseconds
from app.features.users import service, tenant_settings
from app.features.users.schemas import NewUser, TenantChanges, TenantOut, UserChanges, UserOut
from app.http.admission import Admin, Kit, requires
from app.http.cached import cached
from app.http.etags import IfMatch, WriteCondition, etag
from app.http.idempotency import KeyedCall, created, keyed_caller
from app.http.paging import LIMIT_DEFAULT, PageCursor, PageLimit, decode_cursor, page_of
from app.http.responses import JsonResponse
from app.http.routing import ApiRouter
from app.http.schemas import Page
from app.state import tenants
from app.state.accounts import Account, AccountChanges
from app.state.principals import Principal

router = ApiRouter(tags=["Users"])

KeyedAdmin = Annotated[KeyedCall, Depends(keyed_caller("admin", within="users"))]
Staff = Annotated[Principal, Depends(requires("admin", "dispatcher", "underwriter"))]


@router.post("/users", status_code=201, response_model=UserOut, summary="Add a user")
async def create_user(body: NewUser, kit: Kit, call: KeyedAdmin) -> Response:
    """Add a user to the caller's tenant. `409 email_taken` if the address is a user's already."""
    location = f"{kit.settings.base_path}/users"
    return await call.once(
        lambda keyed: service.create_user(
            kit,
            tenant_id=call.principal.tenant_id,
            email=body.email,
            name=body.name,
            role=body.role,
            password=body.password,
            keyed=keyed,
        ),
        answer_of=lambda account: created(
            _shown(account), location=f"{location}/{account.id}", version=account.version
        ),
    )


@router.get("/users", response_model=Page[UserOut], summary="List users")
async def list_users(
    kit: Kit, caller: Admin, cursor: PageCursor = None, limit: PageLimit = LIMIT_DEFAULT
) -> Response:
    """List the tenant's users, deactivated ones too, oldest first."""
    position = decode_cursor("users", cursor, (int, str))
    after = None if position is None else (from_milliseconds(int(position[0])), str(position[1]))
    found = await kit.accounts.page(tenant_id=caller.tenant_id, after=after, limit=limit + 1)
    page = page_of(
        found, limit=limit, kind="users", position_of=lambda user: (to_milliseconds(user.created_at), user.id)
    )
    return JsonResponse({**page, "items": [_shown(account) for account in page["items"]]})


@router.get("/users/{user_id}", response_model=UserOut, summary="Read a user")
async def read_user(user_id: str, kit: Kit, caller: Admin) -> Response:
    """Show one user of the tenant."""
    return _user(await kit.accounts.get(tenant_id=caller.tenant_id, user_id=user_id))


@router.patch("/users/{user_id}", response_model=UserOut, summary="Change a user")
async def change_user(
    user_id: str, body: UserChanges, kit: Kit, caller: Admin, if_match: IfMatch
) -> Response:
    """Change name, role, tier or whether the user is active; it acts on the user's next request.

    `409 last_admin` if nobody would be left to administer the tenant.
    """
    account = await service.change_user(
        kit,
        tenant_id=caller.tenant_id,
        user_id=user_id,
        changes=cast("AccountChanges", body.changes),
        check_version=WriteCondition(if_match, body.version).check,
    )
    return _user(account)


@router.get("/tenant", response_model=TenantOut, summary="Read the tenant")
async def read_tenant(kit: Kit, caller: Staff) -> Response:
    """Show the caller's tenant."""
    found, version = await tenant_settings.read(kit, caller.tenant_id)
    return cached(found, headers={"ETag": etag(version)})


@router.patch("/tenant", response_model=TenantOut, summary="Change the tenant")
async def change_tenant(body: TenantChanges, kit: Kit, caller: Admin, if_match: IfMatch) -> Response:
    """Change name, currency or time zone."""
    tenant = await tenant_settings.change(
        kit,
        caller.tenant_id,
        cast("tenants.TenantChanges", body.changes),
        check_version=WriteCondition(if_match, body.version).check,
    )
    return JsonResponse(tenant_settings.encode(tenant), headers={"ETag": etag(tenant.version)})


def _user(account: Account) -> Response:
    return JsonResponse(_shown(account), headers={"ETag": etag(account.version)})


def _shown(account: Account) -> UserOut:
    return UserOut(
        id=account.id,
        tenant_id=account.tenant_id,
        email=account.email,
        name=account.name,
        role=account.role,
        tier=account.tier,
        active=account.active,
        version=account.version,
        created_at=account.created_at,
        updated_at=account.updated_at,
    )
