"""Errors as RFC 9457 problem documents: the only place that writes error bodies.

`problem_of` maps whatever was raised: our own errors as they are, FastAPI's and Starlette's and slowapi's to
the one of ours that means the same, everything else to a bare `internal_error` that says nothing about the
inside. A path nobody serves and a thing the caller may not see give the same document.

`type` is `/problems/<code>`, relative to the server, where operations serves a sentence about each code.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import orjson
from fastapi.exceptions import RequestValidationError
from slowapi.errors import RateLimitExceeded
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Scope, Send

from app.core.errors import (
    BadRequestError,
    CargoFlowError,
    ConflictError,
    ForbiddenError,
    MethodNotAllowedError,
    NotFoundError,
    PayloadTooLargeError,
    RateLimitedError,
    UnauthenticatedError,
    UnsupportedMediaTypeError,
    ValidationFailedError,
)
from app.http.limits import refused_by_route
from app.http.validation import field_errors, refused

MEDIA_TYPE: Final = b"application/problem+json"
_INTERNAL_DETAIL: Final = "Something went wrong on our side. It has been logged under this request's id."

_BY_STATUS: Final[Mapping[int, type[CargoFlowError]]] = {
    error.status: error
    for error in (
        BadRequestError,
        UnauthenticatedError,
        ForbiddenError,
        NotFoundError,
        MethodNotAllowedError,
        ConflictError,
        PayloadTooLargeError,
        UnsupportedMediaTypeError,
        ValidationFailedError,
        RateLimitedError,
    )
}


@dataclass(frozen=True, slots=True)
class Problem:
    """What goes onto the wire, short of the request's id."""

    status: int
    code: str
    title: str
    detail: str
    extra: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def document(self, request_id: str) -> dict[str, Any]:
        """Return the document, for bodies and for events inside a stream."""
        return {
            "type": f"/problems/{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "request_id": request_id,
            **self.extra,
        }

    def body(self, request_id: str) -> bytes:
        """Return the document as JSON; text that can't be encoded is mended, never a second error."""
        document = self.document(request_id)
        try:
            return orjson.dumps(document)
        except orjson.JSONEncodeError:
            return orjson.dumps(_encodable(document))

    def raw_headers(self, body: bytes) -> list[tuple[bytes, bytes]]:
        """Return the response's headers for that body."""
        headers = [
            (b"content-type", MEDIA_TYPE),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
        ]
        headers.extend(
            (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in self.headers.items()
        )
        return headers


async def send_problem(send: Send, problem: Problem, request_id: str) -> None:
    """Send a whole response that carries the problem."""
    body = problem.body(request_id)
    await send(
        {"type": "http.response.start", "status": problem.status, "headers": problem.raw_headers(body)}
    )
    await send({"type": "http.response.body", "body": body})


INTERNAL: Final = Problem(500, CargoFlowError.code, CargoFlowError.title, _INTERNAL_DETAIL)


def problem_of(error: BaseException, scope: Scope) -> Problem:
    """Return the problem that tells a client about `error`, raised while `scope` was served."""
    if isinstance(error, RateLimitExceeded):
        error = refused_by_route(Request(scope), error)
    if isinstance(error, RequestValidationError):
        error = refused(field_errors(error.errors(), below=1))
    if isinstance(error, CargoFlowError):
        return Problem(error.status, error.code, error.title, error.detail, error.extra, error.headers)
    if isinstance(error, HTTPException):
        # FastAPI wraps what goes wrong while it reads a form; the cause says more
        if isinstance(error.__cause__, CargoFlowError):
            return problem_of(error.__cause__, scope)
        return _of_http_exception(error)
    return INTERNAL


def _of_http_exception(error: HTTPException) -> Problem:
    headers = dict(error.headers or {})
    known = _BY_STATUS.get(error.status_code)
    if known is NotFoundError:
        absent = NotFoundError()
        return Problem(absent.status, absent.code, absent.title, absent.detail, {}, headers)
    phrase = _phrase(error.status_code)
    code = phrase.lower().replace(" ", "_").replace("-", "_") if known is None else known.code
    title = phrase if known is None else known.title
    return Problem(error.status_code, code, title, str(error.detail or phrase), {}, headers)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"Status {status}"


def _encodable(value: Any) -> Any:
    if isinstance(value, dict):
        return {_encodable(str(key)): _encodable(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return str(value).encode(errors="replace").decode()
