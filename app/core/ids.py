"""Opaque identifiers: a prefix that says what it names, and 128 random bits.

`new_id("ses")` gives `ses_` and 22 letters of base 58. The alphabet has no look-alikes and nothing a URL or a
shell would touch. Ids are made by the replica that inserts: 128 bits make a collision less likely than a
broken disk, and the unique `_id` index turns even that into an error instead of an overwrite.
"""

import hashlib
import re
import secrets

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BODY_LENGTH = 22
ID_PATTERN = rf"^[a-z]{{2,4}}_[{_ALPHABET}]{{{_BODY_LENGTH}}}$"
_ID = re.compile(ID_PATTERN)


def new_id(prefix: str) -> str:
    """Return a fresh id such as `ses_4TFxk…`, unguessable and safe in URLs."""
    return _spelled(prefix, secrets.randbits(128))


def derived_id(prefix: str, origin: str) -> str:
    """Return an id that is always the same for the same origin, and as good as never for another one."""
    return _spelled(prefix, int.from_bytes(hashlib.sha256(origin.encode()).digest()[:16]))


def _spelled(prefix: str, number: int) -> str:
    letters = []
    for _ in range(_BODY_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[digit])
    return f"{prefix}_{''.join(letters)}"


def is_id(text: str, prefix: str) -> bool:
    """Say whether `text` has the shape of an id with that prefix; says nothing about whether it exists."""
    return text.startswith(f"{prefix}_") and _ID.fullmatch(text) is not None
