"""A process with four clients that move money, for tests to freeze and kill.

It is a worker as well, and seals what it and the others have recorded. Each client moves random amounts
between random credit lines, pays some back, or holds some for a booking and posts it or lets it go. What
nobody can say of whether it was recorded is recorded again under the same cause. Runs until it is told to
stop, or dies.
"""

import asyncio
import random
import secrets
import signal
from collections.abc import Awaitable, Callable
from functools import partial

from app.core.errors import CargoFlowError, ConflictError, StoreUnavailableError
from app.core.settings import load_settings
from app.features.ledger.errors import InsufficientCreditError, TransferRepeatedError
from app.features.ledger.jobs import handlers
from app.features.ledger.ledger import Ledger
from app.features.ledger.sealing import look_forever
from app.features.ledger.service import Claim
from app.state.job_worker import work_on_jobs
from app.state.kit import StateKit, open_kit
from tests.features.ledger.money import claim, end_hold, hold, moved

CLIENTS = 4
ACCOUNTS = 20
LIMIT_MINOR = 50_000
_LARGEST_MINOR = 5_000
_CHANCE = random.Random()  # noqa: S311  # it hides nothing


def owner(number: int) -> Claim:
    """Who has the credit line of that number."""
    return claim(LIMIT_MINOR, user_id=f"usr_{number}", subject_id=f"app_{number}")


async def insist(work: Callable[[], Awaitable[object]]) -> bool:
    """Do it until it is known to be done, and say whether the limits allowed it."""
    while True:
        try:
            await work()
        except InsufficientCreditError:
            return False
        except TransferRepeatedError:
            return True  # it was done by a try whose answer was lost
        except (ConflictError, StoreUnavailableError):
            await asyncio.sleep(_CHANCE.uniform(0, 0.05))
        else:
            return True


async def move_money(kit: StateKit, stop: asyncio.Event) -> None:
    """Be one client."""
    ledger = Ledger(kit)
    while not stop.is_set():
        first, second = (owner(number) for number in _CHANCE.sample(range(ACCOUNTS), 2))
        amount_minor = _CHANCE.randint(1, _LARGEST_MINOR)
        price = claim(amount_minor, user_id=first.user_id)
        what = _CHANCE.choice(("move", "pay back", "book"))
        if what == "book":
            if await insist(partial(hold, kit, price)):
                await insist(partial(end_hold, kit, _CHANCE.choice(("post", "void")), price))
        else:
            debit = second.credit_line if what == "move" else price.freight_revenue
            transfer = moved(debit, first.credit_line, amount_minor, secrets.token_hex())
            await insist(partial(ledger.make, transfer))


async def main() -> None:
    """Move money and seal until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with open_kit(load_settings()) as kit, asyncio.TaskGroup() as tasks:
        looking = tasks.create_task(look_forever(kit))
        clients = [tasks.create_task(move_money(kit, stop)) for _ in range(CLIENTS)]
        await work_on_jobs(kit, stop, handlers=handlers(kit), outboxes=(), table=())
        await asyncio.gather(*clients)
        looking.cancel()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except* CargoFlowError:
        raise SystemExit(1) from None
