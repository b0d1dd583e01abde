"""A key of its own for each purpose, derived from the server's secrets.

So one kind of token can't pass for another.
"""

import hmac

from app.core.settings import Settings


def derive_keys(settings: Settings, purpose: str) -> tuple[bytes, ...]:
    """Return the key to make things with, followed by the previous one if that is still accepted."""
    secrets = (settings.jwt_secret.get_secret_value(), settings.jwt_secret_previous.get_secret_value())
    return tuple(
        hmac.digest(secret.encode(), f"cargoflow/{purpose}".encode(), "sha256")
        for secret in secrets
        if secret
    )
