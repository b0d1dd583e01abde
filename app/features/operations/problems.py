"""What each error code means: the pages that a problem's `type` points to.

The codes are those of the error classes that are loaded, described by their docstrings, and those Nginx
gives.
"""

import inspect
from collections.abc import Iterator
from functools import cache
from typing import Final

from app.core.errors import CargoFlowError, NotFoundError
from app.features.operations.schemas import ProblemDescription

_FROM_NGINX: Final = (
    *(
        ProblemDescription(code=code, status=status, title=title, description=description)
        for code, status, title, description in (
            ("request_timeout", 408, "Request timeout", "The request did not arrive in time."),
            ("length_required", 411, "Length required", "Send a Content-Length, or the body in chunks."),
            ("uri_too_long", 414, "URI too long", "The address is longer than 8 KB."),
            (
                "range_not_satisfiable",
                416,
                "Range not satisfiable",
                "The range lies outside of the document.",
            ),
            ("headers_too_large", 431, "Request header fields too large", "The headers exceed 32 KB."),
            (
                "not_implemented",
                501,
                "Not implemented",
                "The request uses something of HTTP unsupported here.",
            ),
            ("service_unavailable", 503, "Service unavailable", "Nginx can't take the request. Try again."),
            ("http_version_not_supported", 505, "HTTP version not supported", "Use HTTP/1.1."),
        )
    ),
    ProblemDescription(
        code="bad_gateway",
        status=502,
        title="Bad gateway",
        description="No replica could answer. Read before you repeat a change.",
    ),
    ProblemDescription(
        code="gateway_timeout",
        status=504,
        title="Gateway timeout",
        description="No answer came in time. Read before you repeat a change.",
    ),
    ProblemDescription(
        code="misdirected_request",
        status=421,
        title="Misdirected request",
        description="This server does not answer for the host that the request names.",
    ),
)


def describe(code: str) -> ProblemDescription:
    """Return what the code means. Raises NotFoundError for one that no error has."""
    description = _descriptions().get(code)
    if description is None:
        raise NotFoundError
    return description


@cache
def _descriptions() -> dict[str, ProblemDescription]:
    """By code; complete, since every feature is imported before the first request."""
    known = {description.code: description for description in _FROM_NGINX}
    for error in _classes(CargoFlowError):
        known.setdefault(
            error.code,
            ProblemDescription(
                code=error.code,
                status=error.status,
                title=error.title,
                description=inspect.cleandoc(error.__doc__ or error.title),
            ),
        )
    return known


def _classes(root: type[CargoFlowError]) -> Iterator[type[CargoFlowError]]:
    yield root
    for child in root.__subclasses__():
        yield from _classes(child)
