"""API keys: long-lived credentials of a user for programs, shown once and stored as a hash.

Guarantees
- A key text is `<id>.<secret>` with 256 random bits; SHA-256 of the secret is what is stored.
- A deleted key is refused by the next request through any replica: it goes through `hot.writing` and is
  buried.
- A user has at most KEYS_MAX, exactly, however many are made at once: each takes a slot 0…KEYS_MAX-1 under
  a unique index.

A key acts as its user: whether it is good also depends on the user being active (`state.principals`).

When Redis is gone: writes go on, see `hot`. When MongoDB is gone: StoreUnavailableError.

Document in `api_keys`: {_id key_…, tenant_id, user_id, slot, name, tier, hash, created_at}.
"""

import hashlib
import random
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from pymongo.errors import DuplicateKeyError

from app.core.clock import Clock
from app.core.errors import CargoFlowError, NotFoundError
from app.core.ids import new_id
from app.core.moments import to_the_millisecond
from app.core.settings import Tier
from app.state import keys
from app.state.hot import HotCopies
from app.state.mongo import Document, MongoStore

KEYS_MAX = 20


class ApiKeyLimitError(CargoFlowError):
    """The user has as many keys as one may have."""

    status, code, title = 422, "api_key_limit", "Too many API keys"

    def __init__(self) -> None:
        """Say what would help."""
        super().__init__(f"A user may have {KEYS_MAX} API keys. Delete one that is not used any more.")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret."""

    id: str
    name: str
    tier: Tier
    created_at: datetime

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Read a document of `api_keys`."""
        return cls(document["_id"], document["name"], document["tier"], document["created_at"])


async def ensure_indexes(mongo: MongoStore) -> None:
    """Create what the queries below need. Safe while serving, and twice."""
    await mongo.collection("api_keys").create_index([("user_id", 1), ("slot", 1)], unique=True)


class ApiKeys:
    """Makes, lists and deletes keys. One a process."""

    def __init__(self, *, mongo: MongoStore, hot: HotCopies, clock: Clock) -> None:
        """`clock` dates what is inserted."""
        self._mongo = mongo
        self._hot = hot
        self._clock = clock
        self._keys = mongo.collection("api_keys")

    async def create(self, *, tenant_id: str, user_id: str, name: str, tier: Tier) -> tuple[ApiKey, str]:
        """Insert a key and return it with its text, which is never shown again. Raises ApiKeyLimitError."""
        secret = secrets.token_urlsafe(32)
        document: Document = {
            "_id": new_id("key"),
            "tenant_id": tenant_id,
            "user_id": user_id,
            "name": name,
            "tier": tier,
            "hash": hashlib.sha256(secret.encode()).hexdigest(),
            "created_at": to_the_millisecond(self._clock.now()),
        }
        while not await self._take_slot(document):
            continue
        return ApiKey.from_document(document), f"{document['_id']}.{secret}"

    async def all_of(self, *, tenant_id: str, user_id: str) -> list[ApiKey]:
        """Return the user's keys, oldest first: at most KEYS_MAX."""
        async with self._mongo.guard("api_keys.list"):
            rows = self._keys.find({"user_id": user_id, "tenant_id": tenant_id})
            found = [ApiKey.from_document(document) async for document in rows]
        return sorted(found, key=lambda key: (key.created_at, key.id))

    async def delete(self, *, tenant_id: str, user_id: str, key_id: str) -> None:
        """Delete one of the user's keys, at once on every replica. Raises NotFoundError."""
        async with self._hot.writing(keys.api_key_name(key_id)) as write:
            async with self._mongo.guard("api_keys.delete"):
                result = await self._keys.delete_one(
                    {"_id": key_id, "user_id": user_id, "tenant_id": tenant_id}
                )
            if result.deleted_count == 0:
                raise NotFoundError
            write.bury()

    async def delete_all_of(self, *, tenant_id: str, user_id: str) -> None:
        """Delete all keys the user has now."""
        for key in await self.all_of(tenant_id=tenant_id, user_id=user_id):
            try:
                await self.delete(tenant_id=tenant_id, user_id=user_id, key_id=key.id)
            except NotFoundError:
                continue

    async def _take_slot(self, document: Document) -> bool:
        """Insert into a slot that looked free; False if somebody else was faster. Raises ApiKeyLimitError."""
        async with self._mongo.guard("api_keys.slots"):
            rows = self._keys.find({"user_id": document["user_id"]}, {"slot": 1})
            taken = {row["slot"] async for row in rows}
        free = [slot for slot in range(KEYS_MAX) if slot not in taken]
        if not free:
            raise ApiKeyLimitError
        try:
            async with self._mongo.guard("api_keys.insert"):
                await self._keys.insert_one({**document, "slot": random.choice(free)})  # noqa: S311  # spreads contenders
        except DuplicateKeyError:
            return False
        return True
