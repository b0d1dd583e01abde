"""`/auth`: registering, logging in and out, refresh, passwords, devices."""

from fastapi import Request, Response
from fastapi.responses import Response as EmptyResponse

from app.core.moments import from_milliseconds, to_milliseconds
from app.features.auth import service
from app.features.auth.cookies import drop_refresh_cookie, put_refresh_cookie, refresh_cookie
from app.features.auth.dependencies import CallersDevice, LoggedInCaller
from app.features.auth.schemas import (
    Accepted,
    DeviceOut,
    Me,
    PasswordChange,
    PasswordForgotten,
    PasswordLogin,
    PasswordReset,
    Refresh,
    Registration,
    Session,
    User,
)
from app.features.auth.service import Entry
from app.http.admission import Anonymous, Caller, Kit
from app.http.context import client_ip
from app.http.limits import counted, limiter, per_email, per_email_and_ip, setting
from app.http.paging import LIMIT_DEFAULT, PageCursor, PageLimit, decode_cursor, page_of
from app.http.responses import JsonResponse
from app.http.routing import PUBLIC, ApiRouter
from app.http.schemas import Page
from app.state.kit import StateKit
from app.state.logins import Login

router = ApiRouter(prefix="/auth", tags=["Auth"])

_NO_STORE = {"Cache-Control": "no-store"}
_LINK_SENT = Accepted(detail="If the address is a user's, a mail with a link is on its way.")


def per_ip(request: Request) -> str:
    """Subject: the client's address."""
    return client_ip(request)


@router.post(
    "/register",
    status_code=201,
    response_model=Session,
    openapi_extra=PUBLIC,
    summary="Register a company and its first admin",
)
@limiter.shared_limit(setting("limit_auth"), scope="auth", key_func=per_email_and_ip)
@limiter.shared_limit(setting("limit_auth_email"), scope="auth-email", key_func=per_email)
@limiter.shared_limit(setting("limit_anonymous"), scope="anonymous", key_func=per_ip)
async def register(request: Request, body: Registration, kit: Kit, device: CallersDevice) -> Response:
    """Answer like a login. `409 email_taken` if the address is a user's already."""
    async with counted(request, kit.limits, kit.settings, email=body.email, ip=device.ip) as charge:
        entry = await service.register(
            kit,
            email=body.email,
            password=body.password,
            name=body.name,
            company=body.company,
            device=device,
        )
        await charge.refund()
    return _entered(kit, entry, status_code=201)


@router.post("/login", response_model=Session, openapi_extra=PUBLIC, summary="Log in")
@limiter.shared_limit(setting("limit_auth"), scope="auth", key_func=per_email_and_ip)
@limiter.shared_limit(setting("limit_auth_email"), scope="auth-email", key_func=per_email)
@limiter.shared_limit(setting("limit_anonymous"), scope="anonymous", key_func=per_ip)
async def log_in(request: Request, body: PasswordLogin, kit: Kit, device: CallersDevice) -> Response:
    """Begin a login session. Attempts are counted by address, and given back when they succeed."""
    async with counted(request, kit.limits, kit.settings, email=body.email, ip=device.ip) as charge:
        entry = await service.log_in(kit, email=body.email, password=body.password, device=device)
        await charge.refund()
    return _entered(kit, entry)


@router.post("/refresh", response_model=Session, openapi_extra=PUBLIC, summary="Get a new access token")
async def refresh(request: Request, kit: Kit, body: Refresh | None = None) -> Response:
    """Take the refresh token from the body, or else from the cookie, and give its successor.

    A token is good once; repeated within ten seconds it gets the same successor, after that the login session
    ends (`refresh_reused`).
    """
    presented = body.refresh_token if body is not None else None
    if presented is None:
        presented = refresh_cookie(request)
    return _entered(kit, await service.refresh(kit, presented))


@router.post("/logout", status_code=204, summary="Log out")
async def log_out(kit: Kit, caller: LoggedInCaller) -> Response:
    """End this login session: its tokens are refused by every replica from now on."""
    await service.log_out(kit, caller)
    return _left(kit)


@router.post("/logout-all", status_code=204, summary="Log out everywhere")
async def log_out_everywhere(kit: Kit, caller: LoggedInCaller) -> Response:
    """End all login sessions of the caller. API keys stay."""
    await service.log_out_everywhere(kit, caller)
    return _left(kit)


@router.get("/me", response_model=Me, summary="Who am I?")
async def who_am_i(caller: Caller) -> Response:
    """Show the caller as of now: a changed role shows at once."""
    return JsonResponse(
        Me(
            id=caller.user_id,
            email=caller.email,
            name=caller.name,
            role=caller.role,
            tenant_id=caller.tenant_id,
            tier=caller.tier,
        ),
        headers=_NO_STORE,
    )


@router.post("/password", status_code=204, summary="Change the password")
@limiter.shared_limit(setting("limit_auth"), scope="auth", key_func=per_email_and_ip)
@limiter.shared_limit(setting("limit_auth_email"), scope="auth-email", key_func=per_email)
async def change_password(
    request: Request, body: PasswordChange, kit: Kit, caller: LoggedInCaller
) -> Response:
    """Replace the password. Every other login session of the caller ends."""
    async with counted(
        request, kit.limits, kit.settings, email=caller.email, ip=client_ip(request)
    ) as charge:
        await service.change_password(
            kit, caller, current_password=body.current_password, new_password=body.new_password
        )
        await charge.refund()
    return EmptyResponse(status_code=204)


@router.post(
    "/password/forgot",
    status_code=202,
    response_model=Accepted,
    openapi_extra=PUBLIC,
    summary="Ask for a link to choose a new password",
)
@limiter.shared_limit(setting("limit_auth"), scope="forgot", key_func=per_email_and_ip)
@limiter.shared_limit(setting("limit_auth_email"), scope="forgot-email", key_func=per_email)
@limiter.shared_limit(setting("limit_anonymous"), scope="anonymous", key_func=per_ip)
async def forget_password(request: Request, body: PasswordForgotten, kit: Kit) -> Response:
    """Answer the same whether or not the address is known. The link in the mail is good for an hour."""
    async with counted(request, kit.limits, kit.settings, email=body.email, ip=client_ip(request)):
        await service.ask_for_reset(kit, email=body.email)
    return JsonResponse(_LINK_SENT, status_code=202)


@router.post(
    "/password/reset",
    status_code=204,
    openapi_extra=PUBLIC,
    dependencies=[Anonymous],
    summary="Choose a new password",
)
async def reset_password(body: PasswordReset, kit: Kit) -> Response:
    """Set the password with the token from the mail, once. All login sessions of the user end."""
    await service.reset_password(kit, token=body.token, password=body.password)
    return EmptyResponse(status_code=204)


@router.get("/sessions", response_model=Page[DeviceOut], summary="Where am I logged in?")
async def list_devices(
    kit: Kit, caller: Caller, cursor: PageCursor = None, limit: PageLimit = LIMIT_DEFAULT
) -> Response:
    """List the caller's living login sessions, newest first."""
    position = decode_cursor("logins", cursor, (int, str))
    after = None if position is None else (from_milliseconds(int(position[0])), str(position[1]))
    found = await service.list_devices(kit, caller, after=after, limit=limit + 1)
    page = page_of(
        found,
        limit=limit,
        kind="logins",
        position_of=lambda login: (to_milliseconds(login.created_at), login.id),
    )
    items = [_device(login, caller.credential.id) for login in page["items"]]
    return JsonResponse({**page, "items": items}, headers=_NO_STORE)


@router.delete("/sessions/{login_id}", status_code=204, summary="Log a device out")
async def end_device(login_id: str, kit: Kit, caller: Caller) -> Response:
    """End one of the caller's own login sessions, at once on every replica."""
    await kit.logins.end(tenant_id=caller.tenant_id, user_id=caller.user_id, login_id=login_id)
    return EmptyResponse(status_code=204)


def _entered(kit: StateKit, entry: Entry, *, status_code: int = 200) -> Response:
    account = entry.account
    session = Session(
        access_token=entry.access_token,
        token_type="bearer",  # noqa: S106  # a kind of token, not one
        expires_in=entry.expires_in_s,
        refresh_token=entry.refresh_token,
        user=User(
            id=account.id,
            email=account.email,
            name=account.name,
            role=account.role,
            tenant_id=account.tenant_id,
        ),
    )
    response = JsonResponse(session, status_code=status_code, headers=_NO_STORE)
    left_s = (entry.login.ends_at - kit.clock.now()).total_seconds()
    put_refresh_cookie(response, entry.refresh_token, max_age_s=max(1, round(left_s)), settings=kit.settings)
    return response


def _left(kit: StateKit) -> Response:
    response = EmptyResponse(status_code=204)
    drop_refresh_cookie(response, kit.settings)
    return response


def _device(login: Login, current_id: str) -> DeviceOut:
    return DeviceOut(
        id=login.id,
        created_at=login.created_at,
        last_seen_at=login.last_seen_at,
        expires_at=login.expires_at,
        user_agent=login.device.user_agent,
        ip=login.device.ip,
        current=login.id == current_id,
    )
