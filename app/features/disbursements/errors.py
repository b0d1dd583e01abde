"""What may go wrong with paying out, beyond what may go wrong anywhere."""

from app.core.errors import CargoFlowError, ConflictError
from app.features.credit.transitions import Status, allowed


class GatewayNotConfiguredError(CargoFlowError):
    """There is no payment gateway, and production does not pretend."""

    status, code, title = 503, "gateway_not_configured", "No payment gateway"

    def __init__(self) -> None:
        """Say what an operator does about it."""
        super().__init__("This installation has no payment gateway: set GATEWAY_URL. Nothing was paid.")


class NotPayableError(ConflictError):
    """The application is not approved, or its payment was asked for before."""

    code, title = "invalid_transition", "Invalid transition"

    def __init__(self, *, current: Status) -> None:
        """Name what a reviewer may do instead."""
        asked_for = current in {"disbursing", "disbursed"}
        super().__init__(
            f"The application is {current}: its payment was asked for before, and its disbursement says how "
            "that stands."
            if asked_for
            else f"The application is {current}; only one that is approved is paid out.",
            extra={"current_status": current, "allowed": allowed(current, "reviewer")},
        )


class PaymentFailedError(ConflictError):
    """The gateway refused. The application is approved again."""

    code, title = "payment_refused", "Payment refused"

    def __init__(self, reason: str) -> None:
        """`reason` is the gateway's."""
        super().__init__(
            f"The payment gateway refused: {reason}. Nothing was paid; the application is approved again and "
            "may be disbursed anew.",
            extra={"reason": reason},
        )
