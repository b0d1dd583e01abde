"""Login sessions and the rotation of their refresh tokens.

Guarantees
- A login is alive while its row is found, `expires_at` lies ahead and its `epoch` is its user's
  (`state.principals`). Ended means deleted, with a tombstone in the hot copies: no replica admits it
  again.
- One presented refresh token has one successor. Which request rotates is decided by one update whose filter
  names the presented token's hash; the successor is computed, so all who lost within the grace return the
  same one.
- A genuine token presented after the grace of its rotation ends the whole login (RefreshReusedError):
  either it or its successor was stolen. Text that we never issued harms nobody, see `core.refresh_tokens`.
- Use moves `expires_at` on by the idle time, never beyond `ends_at`.

Does not guarantee: that a client learns of a rotation that was committed as its replica died. It presents
the same token again: within the grace it gets the successor, later it must log in.

When Redis is gone: everything goes on, see `hot`. When MongoDB is gone: StoreUnavailableError.

Document in `logins`: {_id lgn_…, tenant_id, user_id, epoch, idle_s, created_at, last_seen_at, expires_at,
ends_at, user_agent, ip, refresh: {generation, hash, rotated: [{hash, successor, until}]}}. `rotated` holds
the tokens whose grace is not over, at most ROTATED_MAX; hashes only. TTL index on `expires_at`.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

from app.core.clock import Clock
from app.core.errors import NotFoundError, RefreshReusedError, UnauthenticatedError
from app.core.ids import new_id
from app.core.moments import to_the_millisecond
from app.core.refresh_tokens import RefreshToken, RefreshTokens
from app.core.settings import Settings
from app.state import keys
from app.state.accounts import Account
from app.state.expiring import holds_unexpired, with_entry
from app.state.hot import HotCopies
from app.state.mongo import Document, MongoStore, literal, one_page, unexpired
from app.state.principals import Role, idle_end

_log = logging.getLogger(__name__)

ROTATED_MAX = 16
"""A client that rotates more often than this within the grace loses the grace of its oldest tokens."""


@dataclass(frozen=True, slots=True)
class Device:
    """Where a login came from, for its user to recognise."""

    user_agent: str
    ip: str


@dataclass(frozen=True, slots=True)
class Login:
    """A login session as stored, without its refresh tokens."""

    id: str
    tenant_id: str
    user_id: str
    epoch: int
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    ends_at: datetime
    device: Device

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Read a document of `logins`."""
        names = (
            "tenant_id", "user_id", "epoch", "created_at", "last_seen_at", "expires_at", "ends_at",
        )  # fmt: skip
        return cls(
            id=document["_id"],
            device=Device(document["user_agent"], document["ip"]),
            **{name: document[name] for name in names},
        )


async def ensure_indexes(mongo: MongoStore) -> None:
    """Create what the queries below need. Safe while serving, and twice."""
    logins = mongo.collection("logins")
    await logins.create_index([("user_id", 1), ("created_at", -1), ("_id", -1)])
    await logins.create_index("expires_at", expireAfterSeconds=0)


class Logins:
    """Starts, continues and ends login sessions. One a process."""

    def __init__(self, *, mongo: MongoStore, hot: HotCopies, clock: Clock, settings: Settings) -> None:
        """`clock` must be one that follows MongoDB's, see `store_clock`."""
        self._mongo = mongo
        self._hot = hot
        self._clock = clock
        self._tokens = RefreshTokens(settings)
        self._idle_s = settings.login_idle_s
        self._idle_driver_s = settings.login_idle_driver_s
        self._absolute_s = settings.login_absolute_s
        self._grace_ms = settings.refresh_grace_s * 1000
        self._logins = mongo.collection("logins")

    async def start(self, account: Account, device: Device) -> tuple[Login, RefreshToken]:
        """Insert a login under the account's epoch and return it with its first refresh token."""
        login_id = new_id("lgn")
        token = self._tokens.first(login_id)
        now = to_the_millisecond(self._clock.now())
        idle_s = self.idle_s(account.role)
        ends_at = now + timedelta(seconds=self._absolute_s)
        document: Document = {
            "_id": login_id,
            "tenant_id": account.tenant_id,
            "user_id": account.id,
            "epoch": account.epoch,
            "idle_s": idle_s,
            "created_at": now,
            "last_seen_at": now,
            "expires_at": min(ends_at, now + timedelta(seconds=idle_s)),
            "ends_at": ends_at,
            "user_agent": device.user_agent,
            "ip": device.ip,
            "refresh": {"generation": token.generation, "hash": token.hash, "rotated": []},
        }
        async with self._mongo.guard("logins.insert"):
            await self._logins.insert_one(document)
        return Login.from_document(document), token

    async def rotate(self, text: str) -> tuple[Login, RefreshToken]:
        """Take a refresh token back and return its login with the successor. The epoch is not looked at.

        Raises UnauthenticatedError for what is no token of a living login, RefreshReusedError after ending
        the login of a token that was used before.
        """
        presented = self._tokens.parse(text)
        successors = self._tokens.successors(presented)
        if await self._advance(presented, successors[0]):
            return await self._get_alive(presented.login_id), successors[0]
        return await self._repeat(presented, successors)

    async def page(
        self, *, tenant_id: str, user_id: str, epoch: int, after: tuple[datetime, str] | None, limit: int
    ) -> list[Login]:
        """Return up to `limit` living logins of a user, newest first, after the one with this date and id."""
        owned = {"user_id": user_id, "tenant_id": tenant_id, "epoch": epoch}
        alive = unexpired(self._clock.now())
        async with self._mongo.guard("logins.page"):
            rows = self._logins.aggregate(one_page(owned, also=alive, order=-1, after=after, limit=limit))
            return [Login.from_document(document) async for document in rows]

    async def end(self, *, tenant_id: str, user_id: str, login_id: str) -> None:
        """Delete one of the user's logins, at once on every replica. Raises NotFoundError."""
        await self._delete({"_id": login_id, "user_id": user_id, "tenant_id": tenant_id})

    async def sweep(self, account: Account) -> None:
        """Delete the user's logins of earlier epochs, which are dead already."""
        async with self._mongo.guard("logins.sweep"):
            await self._logins.delete_many(
                {"user_id": account.id, "tenant_id": account.tenant_id, "epoch": {"$lt": account.epoch}}
            )

    async def carry_over(self, account: Account, login_id: str) -> None:
        """Let one login live on in the account's present epoch. Not done, it is dead like the others."""
        async with self._hot.writing(keys.login_name(login_id)), self._mongo.guard("logins.carry_over"):
            await self._logins.update_one(
                {
                    "_id": login_id,
                    "user_id": account.id,
                    "tenant_id": account.tenant_id,
                    "epoch": account.epoch - 1,
                },
                {"$set": {"epoch": account.epoch}},
            )

    async def adopt_role(self, account: Account) -> None:
        """Give the user's logins the idle time of the present role, from their next use on."""
        async with self._mongo.guard("logins.adopt_role"):
            await self._logins.update_many(
                {"user_id": account.id, "tenant_id": account.tenant_id},
                {"$set": {"idle_s": self.idle_s(account.role)}},
            )

    def idle_s(self, role: Role) -> int:
        """Return for how long a login of that role may go unused; drivers are on the road."""
        return self._idle_driver_s if role == "driver" else self._idle_s

    async def _advance(self, presented: RefreshToken, successor: RefreshToken) -> bool:
        """Put the successor in the presented token's place; False if it is not the one in force."""
        alive = unexpired(self._clock.now())
        in_force = {"_id": presented.login_id, "refresh.hash": presented.hash, **alive}
        rotated = with_entry(
            "refresh.rotated",
            presented.hash,
            life_ms=self._grace_ms,
            entries_max=ROTATED_MAX,
            successor=successor.hash,
        )
        refresh = {
            "generation": successor.generation,
            "hash": literal(successor.hash),
            "rotated": rotated,
        }
        used = {"last_seen_at": "$$NOW", "expires_at": idle_end(), "refresh": refresh}
        async with self._mongo.guard("logins.rotate"):
            result = await self._logins.update_one(in_force, [{"$set": used}])
        return result.matched_count == 1

    async def _repeat(
        self, presented: RefreshToken, successors: tuple[RefreshToken, ...]
    ) -> tuple[Login, RefreshToken]:
        """Return what a token that was rotated already got, if its grace lasts; end the login if not."""
        now = self._clock.now()
        in_grace = {**unexpired(now), **holds_unexpired("refresh.rotated", presented.hash, now)}
        async with self._mongo.guard("logins.find_rotated"):
            document = await self._logins.find_one({"_id": presented.login_id, **in_grace})
        if document is None:
            await self._get_alive(presented.login_id)
            await self._end_family(presented)
            raise RefreshReusedError(
                "This refresh token was used before. The login has been ended: log in again."
            )
        given = next(
            row["successor"] for row in document["refresh"]["rotated"] if row["hash"] == presented.hash
        )
        for successor in successors:
            if successor.hash == given:
                return Login.from_document(document), successor
        raise UnauthenticatedError("The refresh token was rotated under another server secret. Log in again.")

    async def _get_alive(self, login_id: str) -> Login:
        async with self._mongo.guard("logins.find"):
            document = await self._logins.find_one({"_id": login_id, **unexpired(self._clock.now())})
        if document is None:
            raise UnauthenticatedError("The login has ended. Log in again.")
        return Login.from_document(document)

    async def _end_family(self, presented: RefreshToken) -> None:
        _log.warning(
            "refresh_reused", extra={"login_id": presented.login_id, "generation": presented.generation}
        )
        try:
            await self._delete({"_id": presented.login_id, "refresh.hash": {"$ne": presented.hash}})
        except NotFoundError:
            return

    async def _delete(self, wanted: Document) -> None:
        async with self._hot.writing(keys.login_name(wanted["_id"])) as write:
            async with self._mongo.guard("logins.delete"):
                result = await self._logins.delete_one(wanted)
            if result.deleted_count == 0:
                raise NotFoundError
            write.bury()
