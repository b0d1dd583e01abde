"""One replica that the fuzz tests aim at, with limits that never bite, and somebody with an account on it."""

import secrets
from collections.abc import Iterator

import httpx
import pytest

from app.core.settings import Settings
from tests.engines import MongoEngine, RedisEngine, Replica

UNLIMITED = "1000000/minute"
PASSWORD = "a-long-enough-passphrase"


@pytest.fixture(scope="module")
def target(
    mongo_engine: MongoEngine, redis_engine: RedisEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Replica]:
    # a module's and not the session's: it beats on the Redis that later tests have for themselves
    settings = Settings(
        app_env="development",
        mongodb_uri=mongo_engine.uri(f"fuzz_{secrets.token_hex(6)}"),
        redis_url=redis_engine.url,
        jwt_secret=secrets.token_urlsafe(48),
        limit_auth=UNLIMITED,
        limit_auth_email=UNLIMITED,
        limit_anonymous=UNLIMITED,
        limit_standard=UNLIMITED,
        limit_premium=UNLIMITED,
        limit_booking=UNLIMITED,
        limit_address=UNLIMITED,
    )
    replica = Replica(tmp_path_factory.mktemp("fuzz") / "replica", settings, name="replica-fuzz")
    try:
        replica.spawn()
        replica.wait_until_ready()
        yield replica
    finally:
        replica.stop()


@pytest.fixture(scope="module")
def admin_token(target: Replica) -> str:
    """An access token of the admin of a company of their own."""
    body = {
        "email": f"{secrets.token_hex(8)}@cargoflow.example",
        "password": PASSWORD,
        "name": "Ada",
        "company": "Fuzz",
    }
    registered = httpx.post(f"{target.url}/api/v1/auth/register", json=body, timeout=30)
    assert registered.status_code == 201, registered.text
    token: str = registered.json()["access_token"]
    return token


@pytest.fixture(autouse=True)
def still_standing(target: Replica) -> Iterator[None]:
    """Whatever was sent: the process lives, answers, and has seen no error of its own."""
    began = len(target.log())
    yield
    assert target.alive
    assert target.status_of("/health") == 200
    said = target.log()[began:]
    assert "Traceback" not in said, said[-4000:]
    assert '"level":"ERROR"' not in said, said[-4000:]
