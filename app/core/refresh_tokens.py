"""Refresh tokens: single-use secrets of a login session, each deriving the next.

A token reads `cfr_<login id>.<generation>.<secret>.<tag>`. The first secret is random; every other one is
an HMAC of the server's key over login, generation and the token it replaces, so that each replica computes
the same successor of the same token, and none has to be stored: MongoDB keeps SHA-256 hashes only.

The tag is a MAC over the rest. It proves that we issued the token: what merely looks like one is refused
without asking a store and without harm to the session it names, while a genuine one that was used before is
recognised as reused (`state.logins`).

With two secrets in force a token may have two successors; the stored hash tells which one was given out.
"""

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field

from app.core.errors import UnauthenticatedError
from app.core.ids import ID_PATTERN
from app.core.key_derivation import derive_keys
from app.core.settings import Settings

_SECRET_BYTES = 32
_TAG_BYTES = 12
_SHAPE = re.compile(
    rf"cfr_(?P<body>(?P<login_id>{ID_PATTERN.strip('^$')})\.(?P<generation>[1-9][0-9]{{0,8}})\.[A-Za-z0-9_-]{{43}})"
    r"\.(?P<tag>[A-Za-z0-9_-]{16})"
)


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A genuine token. Only `hash` may be stored, and `text` never logged."""

    login_id: str
    generation: int
    text: str = field(repr=False)

    @property
    def hash(self) -> str:
        """SHA-256 of the text; the text has 256 random bits, so nothing slower is needed."""
        return hashlib.sha256(self.text.encode()).hexdigest()


class RefreshTokens:
    """Makes and recognises them. Pure; two processes with the same secrets agree."""

    def __init__(self, settings: Settings) -> None:
        """Signs with JWT_SECRET, accepts JWT_SECRET_PREVIOUS too."""
        self._successor_keys = derive_keys(settings, "refresh-successor")
        self._tag_keys = derive_keys(settings, "refresh-tag")

    def first(self, login_id: str) -> RefreshToken:
        """Return the token a login session begins with."""
        return self._tagged(login_id, 1, secrets.token_bytes(_SECRET_BYTES), self._tag_keys[0])

    def successors(self, presented: RefreshToken) -> tuple[RefreshToken, ...]:
        """Return what may follow `presented`.

        First what this process gives out, then what one with the previous secret would have given.
        """
        message = f"{presented.login_id}|{presented.generation}|{presented.text}".encode()
        return tuple(
            self._tagged(
                presented.login_id, presented.generation + 1, hmac.digest(key, message, "sha256"), tag_key
            )
            for key, tag_key in zip(self._successor_keys, self._tag_keys, strict=True)
        )

    def parse(self, text: str) -> RefreshToken:
        """Return the token if we issued it, used or not. Raises UnauthenticatedError."""
        shape = _SHAPE.fullmatch(text)
        if shape is None or not any(
            hmac.compare_digest(_tag(key, shape["body"]), shape["tag"]) for key in self._tag_keys
        ):
            raise UnauthenticatedError("The refresh token is not valid. Log in again.")
        return RefreshToken(shape["login_id"], int(shape["generation"]), text)

    def _tagged(self, login_id: str, generation: int, secret: bytes, tag_key: bytes) -> RefreshToken:
        body = f"{login_id}.{generation}.{_letters(secret)}"
        return RefreshToken(login_id, generation, f"cfr_{body}.{_tag(tag_key, body)}")


def _tag(key: bytes, body: str) -> str:
    return _letters(hmac.digest(key, body.encode(), "sha256")[:_TAG_BYTES])


def _letters(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
