"""The port to whoever moves the money, and what may come of asking.

A payment has a key of ours, which is the gateway's own idempotency key: asked to pay twice under one key, it
pays once and says the same. So a payment whose answer was lost may be asked for again, and `find` may be
asked before that. Adapters: `http_gateway` for a real one, `simulator` for development.
"""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be paid, to whom. `key` is ours and always the same for the same payment."""

    key: str
    amount_minor: int
    currency: str
    payee: str


@dataclass(frozen=True, slots=True)
class Payment:
    """What was paid. `id` is the gateway's."""

    id: str


class PaymentRefusedError(Exception):
    """The gateway will not pay, and has not. The message says why, in its own words."""


class AnswerOpenError(Exception):
    """The gateway has paid, or has not, or will yet: it did not say. Ask again with the same key."""


class Gateway(Protocol):
    """Moves money. Every call ends within GATEWAY_TIMEOUT_S."""

    async def pay(self, order: Order) -> Payment:
        """Pay, or say that it was paid before. Raises PaymentRefusedError, AnswerOpenError."""

    async def find(self, key: str) -> Payment | None:
        """Return the payment of this key; None if there is none as of now, which may change: an order may
        still be on its way. Raises PaymentRefusedError if it was refused for good, AnswerOpenError.
        """
