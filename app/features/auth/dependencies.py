"""Who may use the routes that an API key may not."""

from typing import Annotated

from fastapi import Depends, Request

from app.core.errors import ForbiddenError
from app.http.admission import Caller
from app.http.context import client_ip
from app.state.logins import Device
from app.state.principals import Principal

_USER_AGENT_MAX_CHARACTERS = 256


async def _logged_in_caller(caller: Caller) -> Principal:
    if caller.credential.kind != "login":
        raise ForbiddenError("An API key can't do this. Log in.")
    return caller


LoggedInCaller = Annotated[Principal, Depends(_logged_in_caller)]
"""The caller, by a login session. Raises ForbiddenError for an API key."""


async def _device(request: Request) -> Device:
    return Device(request.headers.get("user-agent", "")[:_USER_AGENT_MAX_CHARACTERS], client_ip(request))


CallersDevice = Annotated[Device, Depends(_device)]
"""Where the request comes from, for the list of devices."""
