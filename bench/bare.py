"""The scripts that the application runs in Redis, called as a bare program would: for the floors of writes.

One call each through stock `redis.asyncio`, with as many arguments as the application gives and replies as
long as it gets, for a user, a login and documents of the floor's own.
"""

import os
from itertools import count
from typing import Any

import redis.asyncio

from app.state import hot_lua, keys, principals_lua, realtime_lua
from app.state.hot import HotCopy
from app.state.redis import Script

_OWNER = ("ten_floor", "usr_floor")
_LIFE_MS = 24 * 3600 * 1000
_LIMIT = (10_000_000, 60_000)
_TIERS = ("standard", *_LIMIT, "premium", *_LIMIT, "internal", *_LIMIT)
_CLAIMS = (keys.HOT_LEASE_TTL_MS, keys.HOT_COPY_TTL_MS, 0)
_SCRIPTS = (principals_lua.ADMIT, hot_lua.READ_ONE, hot_lua.BEGIN, hot_lua.SETTLE, realtime_lua.APPEND)
_HEAD = (
    b'{"tenant_id":"ten_0123456789abcdefghijkl","email":"somebody@floor.example","name":"Somebody",'
    b'"role":"admin","tier":"standard","user_id":"usr_0123456789abcdefghijkl"}'
)


class BareScripts:
    """Runs the scripts for one floor process. Made by `ready`."""

    def __init__(self, store: redis.asyncio.Redis) -> None:
        """`store` must know the scripts."""
        self._redis = store
        self._nonces = count()
        self._login = keys.login_name(f"log_floor_{os.getpid()}")

    @classmethod
    async def ready(cls, store: redis.asyncio.Redis) -> "BareScripts":
        """Load the scripts, and put in hot copies of a login and its user."""
        bare = cls(store)
        for script in _SCRIPTS:
            await store.script_load(script.lua)
        generation = await store.get(keys.GENERATION)
        owner = keys.owner(*_OWNER)
        for name, of in ((bare._login, owner), (keys.user_name(*_OWNER), "")):
            copy = {"g": generation, "due": 0, "head": _HEAD, "body": b"", "owner": of, "epoch": "1"}
            await store.hset(keys.hot_copy(name), mapping={**copy, "tier": "standard", "proof": ""})
            await store.pexpire(keys.hot_copy(name), _LIFE_MS)
        return bare

    async def admit(self) -> None:
        """Admit a caller and count the request. Raises RuntimeError if the script doesn't know the caller."""
        names = (
            keys.GENERATION,
            keys.hot_copy(self._login),
            keys.hot_guard(self._login),
            keys.rate_window("anonymous", "127.0.0.1"),
        )
        verdict = await self._run(
            principals_lua.ADMIT,
            names,
            (
                self._nonce(),
                keys.HOT_LEASE_TTL_MS,
                keys.HOT_COPY_TTL_MS,
                0,
                "",
                "",
                "",
                *_LIMIT,
                "",
                3,
                *_TIERS,
            ),
        )
        if verdict[0] != b"alive":
            raise RuntimeError(f"the floor's user is {verdict[0]!r}: was Redis emptied?")

    async def begin(self, name: str) -> str:
        """Raise a barrier before a write of the document called `name`; returns what takes it away."""
        nonce = self._nonce()
        await self._run(hot_lua.BEGIN, _names(name), (nonce, keys.HOT_WRITER_TTL_MS))
        return nonce

    async def settle(self, name: str, nonce: str, head: bytes, body: bytes) -> None:
        """Take the barrier away and put the new copy in."""
        copy = HotCopy(head=head, body=body)
        await self._run(hot_lua.SETTLE, _names(name), (nonce, "fill", *copy.arguments()))

    async def look(self, name: str) -> None:
        """Read the copy of the document called `name`."""
        await self._run(hot_lua.READ_ONE, _names(name), (self._nonce(), keys.HOT_LEASE_TTL_MS, 0))

    async def append(self, channel: str, number: int, kind: str, data: bytes) -> None:
        """Append event `number` of an answer to its stream."""
        tenant_id = _OWNER[0]
        names = (keys.stream(tenant_id, channel), keys.stream_guard(tenant_id, channel))
        mark = f"1.{number}.{kind}"
        await self._run(realtime_lua.APPEND, names, (1, mark, kind, data, 16_100, 900_000))

    async def _run(
        self, script: Script, names: tuple[str, ...], arguments: tuple[str | bytes | int, ...]
    ) -> Any:
        return await self._redis.evalsha(script.sha, len(names), *names, *arguments)  # type: ignore[arg-type,misc]

    def _nonce(self) -> str:
        return f"floor{os.getpid()}.{next(self._nonces)}"


def _names(name: str) -> tuple[str, ...]:
    return (keys.GENERATION, keys.hot_copy(name), keys.hot_guard(name))
