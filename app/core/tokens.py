"""Access tokens: short-lived JWTs (HS256) that name a login session and say nothing that could go stale.

A token proves that we issued it and until when. Whether its login session is still alive, and which role its
user has, is looked up on every request (`state.principals`). Secrets rotate: tokens are signed with
`JWT_SECRET` and also accepted under `JWT_SECRET_PREVIOUS`.

Verified tokens are remembered in a bounded table keyed by their SHA-256, because checking costs 60 µs and the
result never changes; the expiry is compared with the clock every time.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime

import jwt

from app.core.clock import Clock
from app.core.errors import TokenExpiredError, UnauthenticatedError
from app.core.key_derivation import derive_keys
from app.core.settings import Settings

_ISSUER = "cargoflow"
_AUDIENCE = "cargoflow-api"
_ALGORITHM = "HS256"
_MEMO_MAX = 10_000
_TOKEN_MAX_CHARACTERS = 2048


@dataclass(frozen=True, slots=True)
class AccessToken:
    """What a verified token says. Ids only; everything else is looked up."""

    login_id: str
    user_id: str
    tenant_id: str
    expires_at_s: int


class AccessTokens:
    """Mints and verifies. One a process; two processes with the same secret accept each other's tokens."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        """`clock` must be one on which replicas agree, see `state.store_clock`."""
        self._clock = clock
        self.ttl_s = settings.access_token_ttl_s
        self._keys = derive_keys(settings, "access-token")
        self._memo: OrderedDict[bytes, AccessToken] = OrderedDict()

    def mint(self, *, login_id: str, user_id: str, tenant_id: str, issued_at: datetime) -> str:
        """Return a signed token for a login session, good for `ttl_s` from `issued_at`."""
        issued_at_s = int(issued_at.timestamp())
        claims = {
            "iss": _ISSUER,
            "aud": _AUDIENCE,
            "sid": login_id,
            "sub": user_id,
            "tid": tenant_id,
            "iat": issued_at_s,
            "exp": issued_at_s + self.ttl_s,
        }
        return jwt.encode(claims, self._keys[0], algorithm=_ALGORITHM)

    def verify(self, token: str) -> AccessToken:
        """Return what the token says.

        Raises UnauthenticatedError for anything we did not sign, TokenExpiredError for what was good once.
        """
        if len(token) > _TOKEN_MAX_CHARACTERS:
            raise UnauthenticatedError
        fingerprint = hashlib.sha256(token.encode(errors="surrogatepass")).digest()
        verified = self._memo.get(fingerprint)
        if verified is None:
            verified = self._check(token)
            self._memo[fingerprint] = verified
            if len(self._memo) > _MEMO_MAX:
                self._memo.popitem(last=False)
        if verified.expires_at_s <= self._clock.now().timestamp():
            self._memo.pop(fingerprint, None)
            raise TokenExpiredError("The access token has expired. Get a new one from POST /auth/refresh.")
        return verified

    def _check(self, token: str) -> AccessToken:
        for key in self._keys:
            try:
                claims = jwt.decode(
                    token,
                    key,
                    algorithms=[_ALGORITHM],
                    audience=_AUDIENCE,
                    issuer=_ISSUER,
                    options={
                        "require": ["exp", "sid", "sub", "tid"],
                        "verify_exp": False,
                        "verify_iat": False,
                    },
                )
                return AccessToken(
                    str(claims["sid"]), str(claims["sub"]), str(claims["tid"]), int(claims["exp"])
                )
            except (jwt.InvalidTokenError, ValueError):
                continue
        raise UnauthenticatedError
