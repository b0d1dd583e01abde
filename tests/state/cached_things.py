"""Kinds of cache entries for tests, and a loader that counts, waits and fails as it is told."""

import asyncio

from app.state.cache_kinds import CacheEntry, CacheKind

LISTS = CacheKind("test_list", scope="user", key=("tenant_id", "user_id", "status"), ttl_s=3600, stale_s=3600)
QUOTES = CacheKind("test_quote", scope="tenant", key=("tenant_id", "lane"), ttl_s=3600)
RATES = CacheKind("test_rate", scope="shared", key=("currency",), ttl_s=3600)
SMALL = CacheKind("test_small", scope="shared", key=(), ttl_s=60, body_max_bytes=10)
OWNER = {"tenant_id": "ten_a", "user_id": "usr_b"}


def my_list(status: str = "booked", **owner: str) -> CacheEntry:
    return LISTS.entry(**{**OWNER, **owner}, status=status)


class Source:
    """What is cached, as MongoDB would hold it: `body`, read when a load begins and returned when it ends."""

    def __init__(self, body: bytes = b"1") -> None:
        self.body = body
        self.loads = 0
        self.error: Exception | None = None
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    async def load(self) -> bytes:
        self.loads += 1
        body, error = self.body, self.error
        await self.goes_on.wait()
        if error is not None:
            raise error
        return body
