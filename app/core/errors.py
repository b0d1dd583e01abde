"""Everything that may go wrong on purpose, as typed classes with a stable code.

A subclass fixes `status`, `code` and `title`; an instance adds the `detail` a person reads, and optional
`extra` members and `headers`. `app.http.problems` renders them as RFC 9457 problem+json, in one place;
nothing else writes error bodies. Clients rely on `code`. Features add their own subclasses in their
`errors.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class CargoFlowError(Exception):
    """Base of every error that is part of the API's contract."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Internal error"

    def __init__(
        self,
        detail: str,
        *,
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Say what happened in `detail`, for a person and without secrets."""
        super().__init__(detail)
        self.detail = detail
        self.extra: Mapping[str, Any] = extra or {}
        self.headers: Mapping[str, str] = headers or {}


class BadRequestError(CargoFlowError):
    """The request can't be understood at all."""

    status, code, title = 400, "bad_request", "Bad request"


class UnauthenticatedError(CargoFlowError):
    """No credential, or one that is not good."""

    status, code, title = 401, "unauthenticated", "Authentication required"

    def __init__(
        self,
        detail: str = "Send a valid access token as 'Authorization: Bearer …' or an API key as 'X-API-Key'.",
    ) -> None:
        """Say why, without saying which part of the credential was wrong."""
        super().__init__(detail, headers={"WWW-Authenticate": 'Bearer realm="cargoflow"'})


class TokenExpiredError(UnauthenticatedError):
    """The access token was good once: refresh it."""

    code, title = "token_expired", "Access token expired"


class RefreshReusedError(UnauthenticatedError):
    """A refresh token came back after its grace: the whole family is ended."""

    code, title = "refresh_reused", "Refresh token reused"


class ForbiddenError(CargoFlowError):
    """The caller may see it but not do this."""

    status, code, title = 403, "forbidden", "Not allowed"


class NotFoundError(CargoFlowError):
    """It does not exist, or it belongs to somebody else; the answer is the same, byte for byte."""

    status, code, title = 404, "not_found", "Not found"

    def __init__(self, detail: str = "There is nothing here, or nothing you may see.") -> None:
        """Keep the default detail unless the path is unknown: details must not tell cases apart."""
        super().__init__(detail)


class MethodNotAllowedError(CargoFlowError):
    """The path exists, the method does not."""

    status, code, title = 405, "method_not_allowed", "Method not allowed"


class ConflictError(CargoFlowError):
    """The state does not allow it; subclasses say which rule."""

    status, code, title = 409, "conflict", "Conflict"


class VersionConflictError(ConflictError):
    """Somebody else wrote in between; `current_version` says where the document stands."""

    code, title = "version_conflict", "Version conflict"

    def __init__(self, *, current_version: int) -> None:
        """Carry the version that a retry should read first."""
        super().__init__(
            f"The document is at version {current_version}. Read it again and repeat the change.",
            extra={"current_version": current_version},
            headers={"ETag": f'"{current_version}"'},
        )


class InvalidTransitionError(ConflictError):
    """It can't go from where it is to where it was sent; `allowed` says where the caller may send it."""

    code, title = "invalid_transition", "Invalid transition"

    def __init__(
        self, what: str, *, current: str, wanted: str, allowed: Sequence[str], hint: str = ""
    ) -> None:
        """`what` it is, with its article; `hint` is a further sentence."""
        where_to = " or ".join(allowed) or "nowhere any more"
        refusal = f"{what} that is {current} can't become {wanted}; it can go {where_to}."
        super().__init__(
            f"{refusal} {hint}".rstrip(), extra={"current_status": current, "allowed": list(allowed)}
        )


class PreconditionFailedError(CargoFlowError):
    """`If-Match` names another version than the current one."""

    status, code, title = 412, "precondition_failed", "Precondition failed"

    def __init__(self, *, current_version: int) -> None:
        """Carry the version that a retry should read first."""
        super().__init__(
            f"If-Match does not name the current version, which is {current_version}.",
            extra={"current_version": current_version},
            headers={"ETag": f'"{current_version}"'},
        )


class PayloadTooLargeError(CargoFlowError):
    """The body is larger than this route takes."""

    status, code, title = 413, "payload_too_large", "Payload too large"


class UnsupportedMediaTypeError(CargoFlowError):
    """The body is not of a type this route takes."""

    status, code, title = 415, "unsupported_media_type", "Unsupported media type"


class ValidationFailedError(CargoFlowError):
    """The request is understood and breaks a rule; `errors` names each field and what is expected."""

    status, code, title = 422, "validation_failed", "Validation failed"

    def __init__(self, detail: str, *, errors: list[dict[str, Any]] | None = None) -> None:
        """`errors` holds `{"field": "a.b", "message": "…"}` rows."""
        super().__init__(detail, extra={"errors": errors or []})


class RateLimitedError(CargoFlowError):
    """A limit is used up; `Retry-After` says when it opens again."""

    status, code, title = 429, "rate_limited", "Too many requests"


class StoreUnavailableError(CargoFlowError):
    """MongoDB or Redis does not answer in time; nothing was acknowledged. Try again."""

    status, code, title = 503, "store_unavailable", "Store unavailable"

    def __init__(self, store: str, *, retry_after_s: int = 2) -> None:
        """Name the store for the logs of whoever reads the body; it is no secret."""
        super().__init__(
            f"The service can't reach its {store} right now. Nothing was changed; try again shortly.",
            headers={"Retry-After": str(retry_after_s)},
        )
        self.store = store


class DrainingError(CargoFlowError):
    """This replica is leaving; another one will take the request."""

    status, code, title = 503, "draining", "Replica is draining"

    def __init__(self) -> None:
        """Ask for an immediate retry, which the balancer sends elsewhere."""
        super().__init__("This replica is shutting down. Try again.", headers={"Retry-After": "1"})
