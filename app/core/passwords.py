"""Passwords: what is accepted as one, and Argon2id off the event loop.

Guarantees: hashing never runs on the event loop; at most HASHERS run at once and at most QUEUE_MAX wait, so
that a flood of logins is refused (503) instead of delaying everything else; checking a password for a user
who does not exist takes as long as for one who does. Hashes carry their parameters: those made with older
ones still verify, and `outdated` says that they want replacing.

Parameters: OWASP's second recommendation for Argon2id (19 MiB, 2 passes, 1 lane), about 30 ms on the
smallest machine this runs on. Rules: length and a handful of passwords that every attacker tries first; no
composition rules (NIST SP 800-63B, OWASP ASVS 5, 6.2).
"""

import asyncio
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

from app.core.errors import CargoFlowError, ValidationFailedError

T = TypeVar("T")

PASSWORD_MIN_CHARACTERS = 8
PASSWORD_MAX_CHARACTERS = 256

HASHERS = 2
QUEUE_MAX = 64
"""Two hashers empty this in about a second: nobody waits for longer."""

_COMMONEST = frozenset(
    {
        "00000000", "11111111", "123123123", "12345678", "123456789", "1234567890", "1q2w3e4r", "abcd1234",
        "iloveyou", "password", "password1", "qwerty123", "qwertyuiop",
    }
)  # fmt: skip

_NOBODYS_HASH = (
    "$argon2id$v=19$m=19456,t=2,p=1$+06qSC59dOfzKTWxPsGYDg$4VIC6ZMt2OSeRoVBiIuXmj1pRIULYWPuaTJsdlpO8CI"
)
"""Checked when there is no user; its parameters must be the current ones."""


class PasswordsBusyError(CargoFlowError):
    """More passwords wait to be checked than this replica takes on."""

    status, code, title = 503, "passwords_busy", "Too many logins at once"

    def __init__(self) -> None:
        """Ask for a retry, which the balancer spreads over the replicas."""
        super().__init__(
            "Too many logins are under way. Try again in a moment.", headers={"Retry-After": "1"}
        )


def refuse_weak_password(password: str, *, email: str, field: str) -> None:
    """Raise ValidationFailedError, naming `field`, for a password of the wrong length or guessed first."""
    expectation = None
    if not PASSWORD_MIN_CHARACTERS <= len(password) <= PASSWORD_MAX_CHARACTERS:
        expectation = f"must have {PASSWORD_MIN_CHARACTERS} to {PASSWORD_MAX_CHARACTERS} characters"
    elif password.lower() in _COMMONEST:
        expectation = "is one of the first that an attacker tries; choose another"
    elif password.lower() in {email, email.partition("@")[0]}:
        expectation = "must not be the e-mail address"
    if expectation is not None:
        raise ValidationFailedError(
            f"The password {expectation}.", errors=[{"field": field, "message": expectation}]
        )


class Passwords:
    """Hashes and checks. One a process; `close()` when done."""

    def __init__(self) -> None:
        """Threads start with the first use."""
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
        self._threads = ThreadPoolExecutor(HASHERS, thread_name_prefix="argon2")
        self._under_way = 0

    async def hash(self, password: str) -> str:
        """Return an encoded Argon2id hash with a fresh salt. Raises PasswordsBusyError."""
        return await self._off_the_loop(lambda: self._hasher.hash(_canonical(password)))

    async def matches(self, password: str, encoded: str | None) -> bool:
        """Say whether `password` is the one behind `encoded`.

        None stands for a user who does not exist, and takes as long. Raises PasswordsBusyError.
        """
        return await self._off_the_loop(lambda: self._verify(password, encoded))

    def outdated(self, encoded: str) -> bool:
        """Say whether `encoded` was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(encoded)

    def close(self) -> None:
        """Let go of the threads; what has not begun is cancelled."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _verify(self, password: str, encoded: str | None) -> bool:
        try:
            self._hasher.verify(encoded or _NOBODYS_HASH, _canonical(password))
        except VerifyMismatchError:
            return False
        return encoded is not None

    async def _off_the_loop(self, work: Callable[[], T]) -> T:
        if self._under_way >= HASHERS + QUEUE_MAX:
            raise PasswordsBusyError
        self._under_way += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._under_way -= 1


def _canonical(password: str) -> str:
    """Return one spelling for what looks the same: keyboards compose accents differently."""
    return unicodedata.normalize("NFKC", password)
