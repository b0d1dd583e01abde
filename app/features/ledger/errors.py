"""What may go wrong with a transfer, beyond what may go wrong anywhere."""

from app.core.errors import CargoFlowError, ConflictError


class InsufficientCreditError(CargoFlowError):
    """The account's limit does not leave that much, or there is no such account."""

    status, code, title = 422, "insufficient_credit", "Insufficient credit"

    def __init__(self, *, wanted_minor: int, remaining_minor: int | None, currency: str) -> None:
        """`remaining_minor` is None if there is no account in this currency."""
        self.remaining_minor = remaining_minor
        self.currency = currency
        left = (
            f"there is no credit line in {currency}"
            if remaining_minor is None
            else f"{max(remaining_minor, 0)} are left of the credit line"
        )
        super().__init__(f"{wanted_minor} of the smallest unit of {currency} were asked for, and {left}.")


class TransferRepeatedError(ConflictError):
    """There is a transfer of this id, or one that has ended the same hold."""

    def __init__(self, transfer_id: str) -> None:
        """Name it."""
        super().__init__(f"{transfer_id} was recorded before, or what it would end has ended.")
