"""What may go wrong with paying out, beyond what may go wrong anywhere."""

from app.core.errors import CargoFlowError, ConflictError


class GatewayNotConfiguredError(CargoFlowError):
    """There is no payment gateway, and production does not pretend."""

    status, code, title = 503, "gateway_not_configured", "No payment gateway"

    def __init__(self) -> None:
        """Say what an operator does about it."""
        super().__init__("This installation has no payment gateway: set GATEWAY_URL. Nothing was paid.")


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
