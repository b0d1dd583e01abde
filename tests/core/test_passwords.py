import asyncio
import threading

import pytest
from argon2 import PasswordHasher

from app.core import passwords as module
from app.core.errors import ValidationFailedError
from app.core.passwords import HASHERS, QUEUE_MAX, Passwords, PasswordsBusyError, refuse_weak_password

GOOD = "correct horse battery"


async def test_a_password_matches_its_own_hash_only() -> None:
    passwords = Passwords()
    encoded = await passwords.hash(GOOD)
    assert encoded.startswith("$argon2id$")
    assert await passwords.matches(GOOD, encoded)
    assert not await passwords.matches(GOOD + "!", encoded)
    assert encoded != await passwords.hash(GOOD)
    passwords.close()


async def test_nobody_has_a_password_but_checking_it_costs_the_same() -> None:
    passwords = Passwords()
    assert not await passwords.matches(GOOD, None)
    assert not passwords.outdated(module._NOBODYS_HASH)
    passwords.close()


async def test_one_password_typed_on_two_keyboards_is_one_password() -> None:
    passwords = Passwords()
    assert await passwords.matches("Zu\u0308rich am See", await passwords.hash("Z\u00fcrich am See"))
    passwords.close()


async def test_a_hash_with_older_parameters_verifies_and_is_outdated() -> None:
    passwords = Passwords()
    old = PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1).hash(GOOD)
    assert await passwords.matches(GOOD, old)
    assert passwords.outdated(old)
    assert not passwords.outdated(await passwords.hash(GOOD))
    passwords.close()


async def test_hashing_leaves_the_event_loop_free_and_refuses_what_does_not_fit_the_queue() -> None:
    passwords = Passwords()
    release = threading.Event()
    blocked = [asyncio.create_task(passwords._off_the_loop(release.wait)) for _ in range(HASHERS + QUEUE_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(PasswordsBusyError) as refused:
        await passwords.hash(GOOD)
    assert refused.value.status == 503
    assert refused.value.headers["Retry-After"] == "1"
    release.set()
    await asyncio.gather(*blocked)
    assert await passwords.hash(GOOD)
    passwords.close()


@pytest.mark.parametrize(
    "password", ["short", "x" * 257, "password1", "PassWord1", "ada@example.com", "ADA@example.com"]
)
def test_a_password_that_is_guessed_first_is_refused_naming_the_field(password: str) -> None:
    with pytest.raises(ValidationFailedError) as refused:
        refuse_weak_password(password, email="ada@example.com", field="password")
    assert refused.value.extra["errors"][0]["field"] == "password"


@pytest.mark.parametrize("password", ["8 chars!", GOOD, "äöüäöüäö", "x" * 256])
def test_a_password_needs_length_and_nothing_else(password: str) -> None:
    refuse_weak_password(password, email="ada@example.com", field="password")
