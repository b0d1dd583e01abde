"""What may go wrong with a booking, beyond what may go wrong anywhere."""

from app.core.errors import ConflictError


class DraftSubmittedError(ConflictError):
    """The draft has become a booking: what is typed into it now would be lost."""

    code, title = "draft_submitted", "Draft already submitted"

    def __init__(self, booking_id: str) -> None:
        """Name the booking."""
        super().__init__(
            f"This draft was submitted and is booking {booking_id} now. Nothing was saved.",
            extra={"booking_id": booking_id},
        )
