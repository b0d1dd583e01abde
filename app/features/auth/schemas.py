"""Bodies of the auth routes."""

from typing import Annotated

from pydantic import Field, StringConstraints

from app.core.emails import Email
from app.core.moments import Timestamp
from app.core.passwords import PASSWORD_MAX_CHARACTERS, PASSWORD_MIN_CHARACTERS
from app.core.settings import Tier
from app.http.schemas import ResponseModel, StrictModel
from app.state.principals import Role

Name = Annotated[str, Field(min_length=1, max_length=200)]
PresentedPassword = Annotated[
    str, StringConstraints(strip_whitespace=False, min_length=1, max_length=PASSWORD_MAX_CHARACTERS)
]
"""A password to check. Its rules may have changed since it was set."""
NewPassword = Annotated[
    str,
    StringConstraints(
        strip_whitespace=False, min_length=PASSWORD_MIN_CHARACTERS, max_length=PASSWORD_MAX_CHARACTERS
    ),
]
"""A password to set. Any characters; the few that attackers try first are refused."""
_SECRET_MAX_CHARACTERS = 512


class Registration(StrictModel):
    """A new company and its first user."""

    email: Email
    password: NewPassword
    name: Annotated[Name, Field(examples=["Ada Lovelace"])]
    company: Annotated[Name, Field(examples=["Nordwind Logistics"])]


class PasswordLogin(StrictModel):
    """What a user knows."""

    email: Email
    password: PresentedPassword


class Refresh(StrictModel):
    """The refresh token, for clients without a cookie jar. It wins over the cookie."""

    refresh_token: Annotated[str, Field(max_length=_SECRET_MAX_CHARACTERS)] | None = None


class PasswordChange(StrictModel):
    """The old password and the new one."""

    current_password: PresentedPassword
    new_password: NewPassword


class PasswordForgotten(StrictModel):
    """Where to send the link."""

    email: Email


class PasswordReset(StrictModel):
    """The token from the mail and the new password."""

    token: Annotated[str, Field(min_length=1, max_length=_SECRET_MAX_CHARACTERS)]
    password: NewPassword


class User(ResponseModel):
    """Who is logged in."""

    id: str
    email: str
    name: str
    role: Role
    tenant_id: str


class Me(User):
    """The caller, and how much they may ask for."""

    tier: Tier


class Session(ResponseModel):
    """The beginning of a login session, or its continuation."""

    access_token: str
    """Send it as `Authorization: Bearer …`."""
    token_type: str
    expires_in: int
    """Seconds until the access token ends; refresh it then."""
    refresh_token: str
    """Good for one refresh. Also in the cookie `cf_refresh`, which scripts can't read."""
    user: User


class Accepted(ResponseModel):
    """What happens next, whoever asked."""

    detail: str


class DeviceOut(ResponseModel):
    """One login session of the caller."""

    id: str
    created_at: Timestamp
    last_seen_at: Timestamp
    """Written once a tenth of the idle time has passed, so up to that much behind."""
    expires_at: Timestamp
    user_agent: str
    ip: str
    current: bool
    """Whether this is the one that asks."""


class NewApiKey(StrictModel):
    """What to call it, and how much it may ask for."""

    name: Annotated[str, Field(min_length=1, max_length=100, examples=["ERP export"])]
    tier: Tier = "standard"
    """Another one than `standard` is for admins to give."""


class ApiKeyOut(ResponseModel):
    """A key, without its secret."""

    id: str
    name: str
    tier: Tier
    created_at: Timestamp


class CreatedApiKey(ApiKeyOut):
    """A key with its secret, this once."""

    key: str
    """Send it as `X-API-Key`. It can't be shown again."""
