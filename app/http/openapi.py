"""What the OpenAPI document says about the API as a whole."""

from typing import Any, Final

from fastapi.routing import APIRoute

from app.http.schemas import Problem

TITLE: Final = "CargoFlow"
DESCRIPTION: Final = """ The back end of a freight platform: shippers book, dispatchers assign, drivers report
from the road, underwriters review applications. Any replica serves any request.

**Credentials**: `Authorization: Bearer <access token>` from `POST /auth/login`, or `X-API-Key`.

**Errors** are [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457) problems; rely on `code`.

**Concurrency**: a document's `ETag` is its version. Name it in `If-Match` (412 when it is not the current
one) or as `version` in the body (409).

**Repeating** a POST that makes something is safe with an `Idempotency-Key`: it has one effect, and the first
answer comes back with `Idempotent-Replayed: true`, for 24 hours.

**Lists** are pages: send `next_cursor` back as `cursor`.
""".strip()
TAGS: Final[list[dict[str, Any]]] = [
    {"name": "Auth", "description": "Registering, logging in and out, tokens, devices, API keys."},
    {"name": "Users", "description": "The people of a tenant, and the tenant itself."},
    {"name": "Sessions", "description": "Server-side state of a user: drafts, carts, preferences."},
    {"name": "Addresses", "description": "A user's address book."},
    {"name": "Bookings", "description": "Drafts, prices, bookings and their life."},
    {"name": "Credit", "description": "Applications for trade credit and who decides on them."},
    {"name": "Documents", "description": "What an applicant hands in, and what a machine reads in it."},
    {"name": "Ledger", "description": "Accounts, entries, and the proof that they add up."},
    {"name": "Chat", "description": "Questions to the assistant, and answers that survive their server."},
    {"name": "Admin", "description": "How the cluster stands, for a tenant's admin."},
    {"name": "Operations", "description": "Is it alive, is it ready, what is it doing."},
]

_SECURITY_SCHEMES: Final[dict[str, Any]] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "An access token from `POST /auth/login` or `/auth/refresh`.",
    },
    "apiKey": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "A key from `POST /api-keys`; it acts as its creator.",
    },
}


def operation_id(route: APIRoute) -> str:
    """Return `sessions_read` for the handler `read` under the tag Sessions: what generated clients call."""
    return "_".join([*(str(tag).lower().replace(" ", "_") for tag in route.tags[:1]), route.name])


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """Add credentials and the problem schema to FastAPI's document, in place; twice changes nothing."""
    components = document.setdefault("components", {})
    components["securitySchemes"] = _SECURITY_SCHEMES
    document["security"] = [{name: []} for name in _SECURITY_SCHEMES]
    schemas = components.setdefault("schemas", {})
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(problem.pop("$defs"))
    schemas["Problem"] = problem
    return document
