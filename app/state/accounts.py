"""Users: who exists, what they may do, and the epoch under which their logins live.

Guarantees
- An e-mail address names one user in the whole installation (unique index).
- Every write is seen by the next request of that user through any replica: it goes through `hot.writing`.
- A change names the version it read; of two, one wins. Every write that `principals` could see moves
  `version`.
- Raising `epoch` ends all logins of the user at once; deactivation, a new password and logging out
  everywhere do that in the same update as the change itself.
- A tenant keeps an active admin (`state.last_admin`).
- A password reset is single use: its token is in the filter of the update that sets the password.

Does not guarantee: that rows of ended logins and keys are gone; they are dead, and cleaned up by whoever
ended them or by their TTL.

When Redis is gone: writes go on, see `hot`. When MongoDB is gone: StoreUnavailableError.

Document in `users`: {_id usr_…, tenant_id, email, name, role, tier, active, epoch, version, password_hash,
resets: [{hash, until}], created_at, updated_at, idempotency?}. `resets` holds the last RESETS_MAX tokens that
were mailed, hashed.
"""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self, TypedDict

from pymongo.errors import DuplicateKeyError

from app.core.clock import Clock
from app.core.errors import ConflictError, NotFoundError, UnauthenticatedError, VersionConflictError
from app.core.ids import is_id, new_id
from app.core.moments import to_the_millisecond
from app.core.settings import Tier
from app.state import keys
from app.state.expiring import holds_unexpired, with_entry
from app.state.hot import HotCopies
from app.state.idempotency import Idempotency
from app.state.keyed import Keyed
from app.state.last_admin import LastAdmin
from app.state.mongo import Document, MongoStore, one_page
from app.state.patience import Patience
from app.state.principals import Role, user_copy
from app.state.versions import VersionCheck, any_version

RESET_TTL_S = 3600
RESETS_MAX = 3
"""So many mailed links work at a time: asking again does not break the mail that is on its way."""


class EmailTakenError(ConflictError):
    """Another user has this address, perhaps in another tenant."""

    code, title = "email_taken", "E-mail address taken"

    def __init__(self) -> None:
        """Say no more than that."""
        super().__init__("There is a user with this e-mail address already.")


class ResetRefusedError(UnauthenticatedError):
    """The token of a password reset is wrong, used or too old."""

    def __init__(self) -> None:
        """Say what to do next."""
        super().__init__("This link is not valid any more. Ask for a new one.")


class AccountChanges(TypedDict, total=False):
    """What may be changed about a user."""

    name: str
    role: Role
    tier: Tier
    active: bool


@dataclass(frozen=True, slots=True)
class Account:
    """A user as stored."""

    id: str
    tenant_id: str
    email: str
    name: str
    role: Role
    tier: Tier
    active: bool
    epoch: int
    version: int
    password_hash: str = field(repr=False)
    created_at: datetime
    updated_at: datetime

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Read a document of `users`."""
        return cls(
            id=document["_id"],
            **{
                name: document[name]
                for name in (
                    "tenant_id", "email", "name", "role", "tier", "active", "epoch", "version",
                    "password_hash", "created_at", "updated_at",
                )
            },
        )  # fmt: skip


async def ensure_indexes(mongo: MongoStore) -> None:
    """Create what the queries below need. Safe while serving, and twice."""
    users = mongo.collection("users")
    await users.create_index("email", unique=True)
    await users.create_index([("tenant_id", 1), ("created_at", 1), ("_id", 1)])


class Accounts:
    """Reads and writes users. One a process."""

    def __init__(self, *, mongo: MongoStore, hot: HotCopies, idempotency: Idempotency, clock: Clock) -> None:
        """`clock` must be one that follows MongoDB's, see `store_clock`."""
        self._mongo = mongo
        self._hot = hot
        self._idempotency = idempotency
        self._clock = clock
        self._last_admin = LastAdmin(mongo, clock)
        self._users = mongo.collection("users")

    async def create(
        self,
        *,
        tenant_id: str,
        email: str,
        name: str,
        role: Role,
        password_hash: str,
        keyed: Keyed[Account] | None = None,
    ) -> Account:
        """Insert an active user of the standard tier. `email` is normalised. Raises EmailTakenError, and for
        a request with a key what `Idempotency.insert` raises: users are never deleted, so one document does.
        """
        now = to_the_millisecond(self._clock.now())
        document: Document = {
            "_id": new_id("usr"),
            "tenant_id": tenant_id,
            "email": email,
            "name": name,
            "role": role,
            "tier": "standard",
            "active": True,
            "epoch": 1,
            "version": 1,
            "password_hash": password_hash,
            "resets": [],
            "created_at": now,
            "updated_at": now,
        }
        account = Account.from_document(document)
        try:
            await self._idempotency.insert("users", document, keyed, account)
        except DuplicateKeyError:
            raise EmailTakenError from None
        return account

    async def find_by_email(self, email: str) -> Account | None:
        """Return the user with this normalised address, in any tenant: for logging in and mails."""
        async with self._mongo.guard("users.find_by_email"):
            document = await self._users.find_one({"email": email})
        return None if document is None else Account.from_document(document)

    async def find(self, *, tenant_id: str, user_id: str) -> Account | None:
        """Return a user of this tenant."""
        async with self._mongo.guard("users.find"):
            document = await self._users.find_one({"_id": user_id, "tenant_id": tenant_id})
        return None if document is None else Account.from_document(document)

    async def get(self, *, tenant_id: str, user_id: str) -> Account:
        """Return a user of this tenant. Raises NotFoundError."""
        account = await self.find(tenant_id=tenant_id, user_id=user_id)
        if account is None:
            raise NotFoundError
        return account

    async def page(self, *, tenant_id: str, after: tuple[datetime, str] | None, limit: int) -> list[Account]:
        """Return up to `limit` users of this tenant, oldest first, after the one with this date and id."""
        async with self._mongo.guard("users.page"):
            rows = self._users.aggregate(
                one_page({"tenant_id": tenant_id}, order=1, after=after, limit=limit)
            )
            return [Account.from_document(document) async for document in rows]

    async def change(
        self,
        *,
        tenant_id: str,
        user_id: str,
        changes: AccountChanges,
        check_version: VersionCheck = any_version,
    ) -> tuple[Account, Account]:
        """Apply `changes` and return the user before and after; nothing is written if nothing differs.

        Deactivating raises the epoch. Raises NotFoundError, what `check_version` raises about the version
        that is written over, LastAdminError if nobody would be left to administer the tenant,
        VersionConflictError if others keep writing.
        """
        patience = Patience(self._clock)
        while True:
            before = await self.get(tenant_id=tenant_id, user_id=user_id)
            check_version(before.version)
            differing = {key: value for key, value in changes.items() if getattr(before, key) != value}
            if not differing:
                return before, before
            if _ends_being_admin(before, differing):
                await self._last_admin.let_go(
                    tenant_id=tenant_id, user_id=user_id, user_version=before.version
                )
            ends_logins = before.active and not differing.get("active", True)
            update = {"$set": differing, "$inc": {"epoch": 1}} if ends_logins else {"$set": differing}
            after = await self._write(before, {"version": before.version}, update)
            if after is not None:
                return before, after
            if not await patience.wait():
                raise VersionConflictError(current_version=before.version)

    async def end_logins(self, *, tenant_id: str, user_id: str) -> Account:
        """Raise the epoch: every login of the user is dead on every replica. Raises NotFoundError."""
        account = await self.get(tenant_id=tenant_id, user_id=user_id)
        after = await self._write(account, {}, {"$inc": {"epoch": 1}})
        if after is None:
            raise NotFoundError
        return after

    async def change_password(self, account: Account, password_hash: str) -> Account | None:
        """Replace the hash that `account` was read with and end all logins; None if another one is stored."""
        return await self._write(
            account,
            {"password_hash": account.password_hash, "active": True},
            {"$set": {"password_hash": password_hash, "resets": []}, "$inc": {"epoch": 1}},
        )

    async def rehash_password(self, account: Account, password_hash: str) -> None:
        """Store the same password hashed with today's parameters, unless it was changed meanwhile."""
        async with self._mongo.guard("users.rehash"):
            await self._users.update_one(
                {"_id": account.id, "tenant_id": account.tenant_id, "password_hash": account.password_hash},
                {"$set": {"password_hash": password_hash}},
            )

    async def begin_reset(self, account: Account) -> str:
        """Return a fresh token that may set a new password once within RESET_TTL_S; its hash is stored."""
        token = f"{account.id}.{secrets.token_urlsafe(32)}"
        resets = with_entry("resets", _hash(token), life_ms=RESET_TTL_S * 1000, entries_max=RESETS_MAX)
        async with self._mongo.guard("users.begin_reset"):
            await self._users.update_one(
                {"_id": account.id, "tenant_id": account.tenant_id, "active": True},
                [{"$set": {"resets": resets}}],
            )
        return token

    async def find_by_reset(self, token: str) -> Account:
        """Return the user whom the token may give a new password. Raises ResetRefusedError."""
        user_id = token.partition(".")[0]
        if not is_id(user_id, "usr"):
            raise ResetRefusedError
        async with self._mongo.guard("users.find_by_reset"):
            document = await self._users.find_one({"_id": user_id, **self._resettable(token)})
        if document is None:
            raise ResetRefusedError
        return Account.from_document(document)

    async def reset_password(self, account: Account, token: str, password_hash: str) -> Account:
        """Set the password, use up all reset tokens and end all logins, in one update.

        Raises ResetRefusedError if the token was used or ran out meanwhile.
        """
        after = await self._write(
            account,
            self._resettable(token),
            {"$set": {"password_hash": password_hash, "resets": []}, "$inc": {"epoch": 1}},
        )
        if after is None:
            raise ResetRefusedError
        return after

    def _resettable(self, token: str) -> Document:
        return {"active": True, **holds_unexpired("resets", _hash(token), self._clock.now())}

    async def _write(self, account: Account, guard: Document, update: Document) -> Account | None:
        """Update the user if `guard` holds, moving `version` on; None if it does not."""
        identity = {"_id": account.id, "tenant_id": account.tenant_id}
        moved = {
            "$set": {**update.get("$set", {}), "updated_at": to_the_millisecond(self._clock.now())},
            "$inc": {**update.get("$inc", {}), "version": 1},
        }
        async with self._hot.writing(keys.user_name(account.tenant_id, account.id)) as write:
            async with self._mongo.guard("users.update"):
                result = await self._users.update_one({**identity, **guard}, moved)
            if result.matched_count == 0:
                return None
            async with self._mongo.guard("users.find"):
                document = await self._users.find_one(identity)
            if document is None:
                raise NotFoundError
            if document["active"]:
                write.fill(user_copy(document))
            else:
                write.bury()
        return Account.from_document(document)


def _ends_being_admin(account: Account, changes: Mapping[str, Any]) -> bool:
    is_admin = account.active and account.role == "admin"
    stays_admin = changes.get("active", account.active) and changes.get("role", account.role) == "admin"
    return is_admin and not stays_admin


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
