"""A payment gateway for development, which moves nothing and says so: its payments are called `sim_…`.

What it has "paid" is in a collection of its own, `simulated_payments` {_id: the key, payment_id,
amount_minor, currency, payee, asked, paid_at}, so that it outlives replicas as a gateway would. `asked`
counts how often it was asked for that payment. Settings make it slow, fail before it has paid, lose its
answers after it has, and refuse. It keeps to GATEWAY_TIMEOUT_S: what takes longer was not answered.
"""

import asyncio
import random

from pymongo.errors import DuplicateKeyError

from app.core.errors import StoreUnavailableError
from app.core.ids import derived_id
from app.core.settings import Settings
from app.features.disbursements.gateway import AnswerOpenError, Order, Payment, PaymentRefusedError
from app.state.kit import StateKit

PAYMENTS = "simulated_payments"


class SimulatedGateway:
    """A `Gateway`."""

    def __init__(self, kit: StateKit) -> None:
        """Take from the kit what it needs."""
        self._settings: Settings = kit.settings
        self._mongo = kit.mongo
        self._clock = kit.clock
        self._rows = kit.mongo.collection(PAYMENTS)

    async def pay(self, order: Order) -> Payment:
        """See `Gateway`."""
        chances = self._settings
        await self._delay()
        if _happens(chances.gateway_simulated_failed):
            raise AnswerOpenError("simulated: it failed before it paid")
        if _happens(chances.gateway_simulated_refused):
            raise PaymentRefusedError("simulated: it refuses")
        payment_id = derived_id("sim", order.key)
        row = {
            "_id": order.key,
            "payment_id": payment_id,
            "amount_minor": order.amount_minor,
            "currency": order.currency,
            "payee": order.payee,
            "asked": 0,
            "paid_at": self._clock.now(),
        }
        try:
            await self._insert(row)
        except StoreUnavailableError as error:
            raise AnswerOpenError("simulated: its store is gone") from error
        if _happens(chances.gateway_simulated_lost):
            raise AnswerOpenError("simulated: it paid, and the answer was lost")
        return Payment(payment_id)

    async def find(self, key: str) -> Payment | None:
        """See `Gateway`."""
        await self._delay()
        try:
            async with self._mongo.guard("simulated_payments.find"):
                row = await self._rows.find_one({"_id": key})
        except StoreUnavailableError as error:
            raise AnswerOpenError("simulated: its store is gone") from error
        return None if row is None else Payment(row["payment_id"])

    async def _insert(self, row: dict[str, object]) -> None:
        try:
            async with self._mongo.guard("simulated_payments.insert"):
                await self._rows.insert_one(row)
        except DuplicateKeyError:
            pass
        async with self._mongo.guard("simulated_payments.count"):
            await self._rows.update_one({"_id": row["_id"]}, {"$inc": {"asked": 1}})

    async def _delay(self) -> None:
        delay_s, timeout_s = self._settings.gateway_simulated_delay_s, self._settings.gateway_timeout_s
        await asyncio.sleep(min(delay_s, timeout_s))
        if delay_s > timeout_s:
            raise AnswerOpenError(f"simulated: no answer within {timeout_s:g} s")


def _happens(share: float) -> bool:
    return random.random() < share  # noqa: S311  # a simulation
