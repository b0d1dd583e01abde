"""The refresh token as a cookie that scripts can't read and other sites can't send."""

from typing import Any

from fastapi import Request, Response

from app.core.settings import Settings

COOKIE = "cf_refresh"
_SAME_SITE: Any = "Strict"
"""As it is usually written; Starlette passes it on, but its types know the lower-case spelling only."""


def refresh_cookie(request: Request) -> str | None:
    """Return the token the browser sent along."""
    return request.cookies.get(COOKIE)


def put_refresh_cookie(response: Response, token: str, *, max_age_s: int, settings: Settings) -> None:
    """Let the browser keep the token for as long as it can be good."""
    response.set_cookie(
        COOKIE,
        token,
        max_age=max_age_s,
        path=f"{settings.base_path}/auth",
        secure=settings.production,
        httponly=True,
        samesite=_SAME_SITE,
    )


def drop_refresh_cookie(response: Response, settings: Settings) -> None:
    """Let the browser forget it."""
    response.delete_cookie(
        COOKIE,
        path=f"{settings.base_path}/auth",
        secure=settings.production,
        httponly=True,
        samesite=_SAME_SITE,
    )
