"""What may go wrong with an application, beyond what may go wrong anywhere."""

from app.core.errors import ConflictError


class HistoryFullError(ConflictError):
    """The application has as many entries in its history as it may have. It can still be sent on."""

    code, title = "history_full", "History full"

    def __init__(self, limit: int) -> None:
        """Say how many."""
        super().__init__(
            f"The application has {limit} entries in its history; only its status can change any more.",
            extra={"limit": limit},
        )
