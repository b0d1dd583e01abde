"""Booking numbers: what people read out on the phone. `BK-7K3M-9QTX`.

Seven random letters of Crockford's base 32 and an eighth that checks them (Luhn's algorithm modulo 32, which
finds every single wrong letter and nearly every swap of neighbours). They are unique in a tenant by an index,
not by a counter that all bookings would have to wait for: with a hundred thousand bookings three inserts in a
million draw a number that is taken, and draw again.
"""

import re
import secrets
from typing import Final

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_VALUES: Final = {letter: value for value, letter in enumerate(_ALPHABET)}
_LOOK_ALIKES: Final = str.maketrans("OIL", "011")
_RANDOM_LETTERS: Final = 7
_NUMBER: Final = re.compile(r"BK-?([0-9A-Z]{4})-?([0-9A-Z]{4})")


def new_number() -> str:
    """Return a number, most likely not taken."""
    letters = "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_LETTERS))
    return _written(letters + _check_letter(letters))


def read_number(text: str) -> str | None:
    """Return the number that a person meant, or None if it can't be one.

    Case, dashes and the usual mistaken letters (O for 0, I and L for 1) are forgiven.
    """
    found = _NUMBER.fullmatch(text.strip().upper())
    if found is None:
        return None
    letters = (found[1] + found[2]).translate(_LOOK_ALIKES)
    if any(letter not in _VALUES for letter in letters) or _check_letter(letters[:-1]) != letters[-1]:
        return None
    return _written(letters)


def _written(letters: str) -> str:
    return f"BK-{letters[:4]}-{letters[4:]}"


def _check_letter(letters: str) -> str:
    total = 0
    for place, letter in enumerate(reversed(letters)):
        value = _VALUES[letter] * (1 if place % 2 else 2)
        total += value // len(_ALPHABET) + value % len(_ALPHABET)
    return _ALPHABET[-total % len(_ALPHABET)]
