"""Declaring what may be cached: owners are in the key, or nothing starts."""

import subprocess
import sys
from typing import Any

import pytest

from app.state.cache_kinds import CacheKind, CacheKindError, everything_of

QUOTES = CacheKind("kinds_quote", scope="tenant", key=("tenant_id", "lane", "weight"), ttl_s=60)
LISTS = CacheKind("kinds_list", scope="user", key=("tenant_id", "user_id", "status"), ttl_s=60)
RATES = CacheKind("kinds_rate", scope="shared", key=("currency",), ttl_s=60)
OWNER = {"tenant_id": "ten_a", "user_id": "usr_b"}


@pytest.mark.parametrize(
    "declaration",
    [
        {"scope": "user", "key": ("status",)},
        {"scope": "user", "key": ("user_id", "status")},
        {"scope": "user", "key": ("tenant_id", "status")},
        {"scope": "user", "key": ("status", "tenant_id", "user_id")},
        {"scope": "tenant", "key": ("lane",)},
        {"scope": "tenant", "key": ("tenant_id", "user_id")},
        {"scope": "shared", "key": ("tenant_id",)},
        {"scope": "shared", "key": ("a", "a")},
        {"scope": "shared", "key": (), "ttl_s": 0},
        {"scope": "shared", "key": (), "stale_s": -1},
        {"scope": "shared", "key": (), "ttl_s": 80_000, "stale_s": 8_000},
        {"scope": "shared", "key": (), "name": "not plain"},
    ],
)
def test_a_kind_that_would_leak_or_not_work_cannot_be_declared(declaration: dict[str, Any]) -> None:
    with pytest.raises(CacheKindError):
        CacheKind(**{"name": "kinds_wrong", "ttl_s": 60, **declaration})


def test_a_process_with_a_wrong_declaration_does_not_start() -> None:
    code = (
        "from app.state.cache_kinds import CacheKind\n"
        "MINE = CacheKind('mine', scope='user', key=('status',), ttl_s=60)\n"
        "import app.main\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert "mine is cached per user: its key must begin with tenant_id, user_id." in ended.stderr


def test_a_name_means_one_thing() -> None:
    same = CacheKind("kinds_rate", scope="shared", key=("currency",), ttl_s=60)
    assert same == RATES
    with pytest.raises(CacheKindError):
        CacheKind("kinds_rate", scope="shared", key=("country",), ttl_s=60)


@pytest.mark.parametrize(
    "parts",
    [
        {"status": "booked"},
        {"tenant_id": "ten_a", "status": "booked"},
        {"user_id": "usr_b", "status": "booked"},
        {**OWNER},
        {**OWNER, "status": "booked", "page": 1},
        {**OWNER, "tenant_id": "", "status": "booked"},
        {**OWNER, "user_id": None, "status": "booked"},
        {**OWNER, "user_id": "usr_b:usr_c", "status": "booked"},
        {**OWNER, "tenant_id": "*", "status": "booked"},
    ],
)
def test_an_entry_without_its_owner_cannot_be_made(parts: dict[str, Any]) -> None:
    with pytest.raises(CacheKindError):
        LISTS.entry(**parts)


def test_every_part_of_the_key_tells_entries_apart() -> None:
    entries = [
        LISTS.entry(tenant_id=tenant, user_id=user, status=status)
        for tenant in ("ten_a", "ten_b")
        for user in ("usr_a", "usr_b")
        for status in ("1", 1, True, None, "", ":", "a:b")
    ]
    entries += [
        QUOTES.entry(tenant_id="ten_a", lane=lane, weight=weight)
        for lane, weight in (("a", "b"), ("a:b", ""), ("", "a:b"), ('a","b', ""), ("a", None))
    ]
    assert len({entry.hash_key for entry in entries}) == len(entries)


def test_owners_stand_in_the_key_in_plain_sight() -> None:
    assert ":ten_a:usr_b:" in LISTS.entry(**OWNER, status="x").hash_key
    assert ":ten_a:" in QUOTES.entry(tenant_id="ten_a", lane="x", weight=1).hash_key


@pytest.mark.parametrize(
    ("kind", "owner"),
    [(LISTS, {}), (LISTS, {"user_id": "usr_b"}), (QUOTES, {}), (QUOTES, OWNER), (RATES, OWNER)],
)
def test_invalidating_needs_an_owner_that_the_scope_knows(kind: CacheKind, owner: dict[str, str]) -> None:
    with pytest.raises(CacheKindError):
        kind.all(**owner)


def test_what_can_be_invalidated_together_is_what_entries_depend_on() -> None:
    entry = LISTS.entry(**OWNER, status="x")
    assert LISTS.all(tenant_id="ten_a").hash_key in entry.owners
    assert LISTS.all(**OWNER).hash_key in entry.owners
    assert everything_of(**OWNER).hash_key in entry.owners
    assert RATES.all().hash_key in RATES.entry(currency="EUR").owners
