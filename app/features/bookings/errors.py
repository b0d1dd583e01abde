"""What may go wrong with a booking, beyond what may go wrong anywhere."""

from app.core.errors import ConflictError, ValidationFailedError
from app.core.money import written


class DraftSubmittedError(ConflictError):
    """The draft has become a booking: what is typed into it now would be lost."""

    code, title = "draft_submitted", "Draft already submitted"

    def __init__(self, booking_id: str) -> None:
        """Name the booking."""
        super().__init__(
            f"This draft was submitted and is booking {booking_id} now. Nothing was saved.",
            extra={"booking_id": booking_id},
        )


class CreditRefusedError(ValidationFailedError):
    """The customer's credit line does not leave the price of the booking."""

    def __init__(self, *, price_minor: int, remaining_minor: int | None, currency: str) -> None:
        """`remaining_minor` is None if there is no credit line in this currency."""
        message = (
            f"needs a credit line in {currency}, and there is none; choose prepaid"
            if remaining_minor is None
            else f"the price is {written(price_minor, currency)}, and of the credit line "
            f"{written(remaining_minor, currency)} is left; choose prepaid"
        )
        super().__init__(
            "The request breaks a rule; 'errors' says where.",
            errors=[{"field": "payment", "message": message}],
        )
