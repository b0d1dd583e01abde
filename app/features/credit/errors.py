"""What may go wrong with an application, beyond what may go wrong anywhere."""

from collections.abc import Sequence

from app.core.errors import ConflictError, ForbiddenError


class InvalidTransitionError(ConflictError):
    """The application can't go from where it is to where it was sent."""

    code, title = "invalid_transition", "Invalid transition"

    def __init__(self, *, current: str, wanted: str, allowed: Sequence[str]) -> None:
        """Name what the caller may do instead."""
        where_to = " or ".join(allowed) or "nowhere by hand"
        super().__init__(
            f"An application that is {current} can't become {wanted}; it can go {where_to}."
            if wanted != current
            else f"The application is {current} already; say something about it in `note`, or send it on.",
            extra={"current_status": current, "allowed": list(allowed)},
        )


class OwnApplicationError(ForbiddenError):
    """Who applied does not decide: somebody else reviews the application (four eyes)."""

    code, title = "own_application", "Your own application"

    def __init__(self, application_ids: Sequence[str] = ()) -> None:
        """Name the ones it is about where several were sent."""
        super().__init__(
            "You applied for this yourself, so somebody else has to act on it.",
            extra={"application_ids": list(application_ids)} if application_ids else None,
        )


class HistoryFullError(ConflictError):
    """The application has as many entries in its history as it may have. It can still be sent on."""

    code, title = "history_full", "History full"

    def __init__(self, limit: int) -> None:
        """Say how many."""
        super().__init__(
            f"The application has {limit} entries in its history; only its status can change any more.",
            extra={"limit": limit},
        )
