"""What the edge knows about the request under way, for logs, problems and limits.

The edge makes one `RequestContext` a request, puts it into a context variable and into the ASGI scope, and
fills the rest in as it becomes known: the dispatcher the route's template, admission the user and tenant. Log
records made while the request runs carry it (`log_fields`), whichever layer writes them.
"""

from contextvars import ContextVar
from typing import Final

from starlette.requests import HTTPConnection
from starlette.types import Scope

SCOPE_KEY: Final = "cargoflow.context"
RESPONSE_HEADERS_KEY: Final = "cargoflow.headers"
"""Where a dependency leaves headers (a list of byte pairs) that the response carries, a problem included."""
UNMATCHED: Final = "unmatched"


class RequestContext:
    """One request. `template` is UNMATCHED until a route is found, ids are empty until admission knows."""

    __slots__ = (
        "client_gone",
        "client_ip",
        "request_id",
        "response_started",
        "template",
        "tenant_id",
        "user_id",
    )

    def __init__(self, request_id: str, client_ip: str) -> None:
        """Both are known before anything else happens."""
        self.request_id = request_id
        self.client_ip = client_ip
        self.template = UNMATCHED
        self.user_id = ""
        self.tenant_id = ""
        self.response_started = False
        self.client_gone = False


current: Final[ContextVar[RequestContext | None]] = ContextVar("cargoflow_request", default=None)
"""The request this task works for; None outside requests."""


def context_of(scope: Scope) -> RequestContext:
    """Return the context of a scope that came through the edge."""
    context: RequestContext = scope[SCOPE_KEY]
    return context


def client_ip(connection: HTTPConnection) -> str:
    """Return the client's address: the peer's, or what a trusted proxy said it is."""
    return context_of(connection.scope).client_ip


def request_id() -> str:
    """Return the id of the request under way; empty outside requests."""
    context = current.get()
    return "" if context is None else context.request_id


def identify(connection: HTTPConnection, *, user_id: str, tenant_id: str) -> None:
    """Note who the caller turned out to be, for logs."""
    context = context_of(connection.scope)
    context.user_id, context.tenant_id = user_id, tenant_id


def log_fields() -> dict[str, str]:
    """Return what every log line written during a request carries."""
    context = current.get()
    if context is None:
        return {}
    fields = {"request_id": context.request_id}
    if context.user_id:
        fields["user_id"] = context.user_id
        fields["tenant_id"] = context.tenant_id
    return fields
