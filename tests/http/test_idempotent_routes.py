"""Every POST that makes something takes an `Idempotency-Key`, and Nginx repeats those and no others."""

import re
from pathlib import Path
from typing import Any

import pytest

from app.core.settings import Settings
from app.main import create_app

NGINX = Path(__file__).resolve().parents[2] / "nginx" / "snippets" / "requests.conf"
KEYLESS_BUT_REPEATABLE = {"/api/v1/quotes"}
"""POSTs without a key that may be repeated all the same, since they change nothing."""


@pytest.fixture(scope="module")
def posts() -> dict[str, dict[str, Any]]:
    paths = create_app(Settings(app_env="development")).openapi()["paths"]
    return {path: operations["post"] for path, operations in paths.items() if "post" in operations}


def takes_key(operation: dict[str, Any]) -> bool:
    return "Idempotency-Key" in {parameter["name"] for parameter in operation.get("parameters", ())}


def never_replayed(path: str) -> bool:
    found = re.search(
        r"map \$uri \$never_replayed \{.*?\"~(?P<routes>[^\"]+)\"", NGINX.read_text(), re.DOTALL
    )
    assert found is not None
    return re.search(found["routes"], path) is not None


def test_a_post_takes_a_key_or_nginx_never_repeats_it(posts: dict[str, dict[str, Any]]) -> None:
    unsafe = {
        path
        for path, operation in posts.items()
        if not takes_key(operation) and not never_replayed(path) and path not in KEYLESS_BUT_REPEATABLE
    }
    assert not unsafe, "nginx repeats these on another replica if a client sends a key, and they ignore it"


def test_what_returns_secrets_takes_no_key(posts: dict[str, dict[str, Any]]) -> None:
    secretive = {path for path in posts if re.match(r"/api/v1/(auth|api-keys|realtime)(/|$)", path)}
    assert secretive
    assert not {path for path in secretive if takes_key(posts[path])}


def test_what_makes_something_takes_one(posts: dict[str, dict[str, Any]]) -> None:
    keyed = {path for path in posts if takes_key(posts[path])}
    assert {"/api/v1/sessions", "/api/v1/users", "/api/v1/chat", "/api/v1/chat/stream"} <= keyed


def test_nginx_repeats_whatever_takes_one(posts: dict[str, dict[str, Any]]) -> None:
    assert not {path for path in posts if takes_key(posts[path]) and never_replayed(path)}
