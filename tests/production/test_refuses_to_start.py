"""In production a missing, weak or unreadable setting keeps a process from starting; one line says which."""

import os
import secrets
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from app.core.settings import SettingsError, load_settings

REPOSITORY = Path(__file__).resolve().parents[2]
TIMEOUT_S = 60
STRONG = secrets.token_urlsafe(48)
GOOD = {
    "APP_ENV": "production",
    "JWT_SECRET": STRONG,
    "MONGODB_URI": "mongodb://someone:mongo-passphrase-8431@127.0.0.1:9/cargoflow",
    "REDIS_URL": "redis://:redis-passphrase-5097@127.0.0.1:9/0",
}
SAMPLES = (
    "change-me-change-me-change-me-0123456789",
    "CHANGE_THIS_TO_SOMETHING_RANDOM_0987654321",
    "your-super-secret-jwt-key-for-development",
    "this-is-an-example-of-a-long-enough-value",
    "my-password-is-my-password-abcdefghij-42",
    "replace-with-a-fresh-random-value-please",
    "insecure-default-value-of-the-local-build",
    "qwertyuiopasdfghjklzxcvbnm1234567890qwerty",
)
WEAK = (
    "short",
    "a" * 64,
    "abcabcabcabcabcabcabcabcabcabcabcabcabc",
    " " * 48,
    STRONG[:31],
)


def start(module: str, **changes: str | None) -> "subprocess.CompletedProcess[str]":
    """Start it with a good environment but for `changes` (None: without that variable)."""
    given = {**GOOD, **changes}
    environment = {
        name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ
    }
    return subprocess.run(
        [sys.executable, "-m", module],
        cwd=REPOSITORY,
        env={**environment, **{name: value for name, value in given.items() if value is not None}},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def assert_refused(ended: "subprocess.CompletedProcess[str]", variable: str, *hidden: str) -> None:
    """It ended by itself, badly, with one line that names the variable and repeats no secret."""
    said = ended.stderr.splitlines()
    assert ended.returncode > 0, f"exit status {ended.returncode}: {ended.stderr}"
    assert len(said) == 1, ended.stderr
    assert variable in said[0]
    assert "Traceback" not in ended.stdout + ended.stderr
    for value in hidden:
        assert value not in ended.stdout + ended.stderr


MODULES = pytest.mark.parametrize("module", ["app.main", "app.worker"])


@MODULES
@pytest.mark.parametrize("variable", ["JWT_SECRET", "MONGODB_URI", "REDIS_URL"])
def test_production_does_not_start_without_a_setting_it_can_not_assume(module: str, variable: str) -> None:
    ended = start(module, **{variable: None})
    others = [given for name, given in GOOD.items() if name not in {variable, "APP_ENV"}]
    assert_refused(ended, variable, *others, "mongo-passphrase-8431", "redis-passphrase-5097")


@MODULES
@pytest.mark.parametrize("secret", [SAMPLES[0], WEAK[1]], ids=["sample", "weak"])
def test_production_does_not_start_with_a_sample_or_a_weak_secret(module: str, secret: str) -> None:
    assert_refused(start(module, JWT_SECRET=secret), "JWT_SECRET", secret)


@MODULES
def test_production_does_not_start_with_a_number_it_can_not_read(module: str) -> None:
    assert_refused(start(module, DB_POOL_MAX="0x20"), "DB_POOL_MAX", STRONG)


@MODULES
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MONGODB_URI", "mongodb://someone:p@ss:phrase-77@[::1:27017/cargoflow"),
        ("REDIS_URL", "redis://:phrase-77@127.0.0.1:port/0"),
    ],
)
def test_a_store_address_that_can_not_be_read_is_refused_without_its_password(
    module: str, variable: str, value: str
) -> None:
    assert_refused(start(module, **{variable: value}), variable, "phrase-77")


def test_a_port_in_use_is_one_line_and_a_failure() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = start("app.main", PORT=str(port))
    assert_refused(ended, str(port), STRONG)


def refusal(monkeypatch: pytest.MonkeyPatch, **changes: str) -> str:
    """Return what reading the settings says, which is what the processes above print."""
    for name, value in {**GOOD, **changes}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_what_the_tests_here_call_good_is_good(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    assert load_settings().production


@pytest.mark.parametrize("variable", ["JWT_SECRET", "JWT_SECRET_PREVIOUS"])
@pytest.mark.parametrize(
    "secret", [*SAMPLES, *WEAK], ids=[*SAMPLES, *(f"weak {n}" for n in range(len(WEAK)))]
)
def test_no_sample_and_nothing_weak_passes_for_a_secret(
    monkeypatch: pytest.MonkeyPatch, variable: str, secret: str
) -> None:
    said = refusal(monkeypatch, **{variable: secret})
    assert said.startswith(f"{variable} ")
    assert secret not in said


@pytest.mark.parametrize("variable", ["JWT_SECRET", "MONGODB_URI", "REDIS_URL"])
def test_empty_is_missing(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    assert variable in refusal(monkeypatch, **{variable: ""})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PORT", "eighty"),
        ("PORT", "70000"),
        ("DB_POOL_MAX", "0x20"),
        ("MONGO_TIMEOUT_S", "fast"),
        ("MONGO_TIMEOUT_S", "nan"),
        ("REDIS_TIMEOUT_S", "-1"),
        ("ACCESS_TOKEN_TTL_S", "1e999"),
        ("LIMIT_STANDARD", "plenty"),
        ("LIMIT_AUTH", "5/fortnight"),
        ("TRUSTED_PROXIES", "everybody"),
        ("CORS_ORIGIN", "*"),
        ("LOG_LEVEL", "LOUD"),
        ("API_VERSION", "../v1"),
        ("APP_ENV", "produktion"),
        ("MONGODB_URI", "postgres://127.0.0.1/cargoflow"),
        ("MONGODB_URI", "mongodb://127.0.0.1:notaport/cargoflow"),
        ("REDIS_URL", "127.0.0.1:6379"),
    ],
)
def test_a_setting_that_can_not_be_read_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    assert refusal(monkeypatch, **{variable: value}).startswith(f"{variable}:")
