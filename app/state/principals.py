"""Who is calling: from a credential to a living user with a role and a tier, in one round trip.

Guarantees: a credential is good only if its login session (or API key) is *found alive* and its user is
active, in hot copies or else in MongoDB; if neither store can say so, StoreUnavailableError. Role and tier
come from the user's document. Logging out, changing a role, deactivating a user take effect on every replica
with the acknowledgement of that write, because all of them go through `hot`. A wiped Redis revives nobody.
The same round trip counts the request against its limits and may bring one hot document along.

Documents read here, written by `logins`, `api_keys` and `accounts`:
- `logins` {_id, tenant_id, user_id, epoch, idle_s, last_seen_at, expires_at, ends_at, …}: alive while
  `expires_at` lies ahead on a clock that follows MongoDB's. It moves on while the session is used (written
  at most once per tenth of `idle_s`), never beyond `ends_at`.
- `users` {_id, tenant_id, email, name, role, tier, active, epoch, …}: a login whose `epoch` is not its user's
  is dead; raising the user's ends all at once.
- `api_keys` {_id, tenant_id, user_id, tier, hash, …}.

When Redis is gone: every check reads MongoDB, limits are counted per replica. When MongoDB is gone: those
whose copies are hot go on, for at most a minute.
"""

import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import orjson

from app.core.clock import Clock
from app.core.errors import StoreUnavailableError
from app.core.settings import Tier
from app.state import keys, principals_lua
from app.state.hot import MISS, HotCopies, HotCopy, HotRead
from app.state.mongo import Document, MongoStore, unexpired
from app.state.rate_limits import Charge, Limit, Rate, RateLimits
from app.state.redis import RedisStore

_log = logging.getLogger(__name__)

Role = Literal["admin", "dispatcher", "underwriter", "driver", "shipper"]

TOUCH_SHARE = 0.1
"""A login session is extended once this share of its idle time is spent: no write per read."""


@dataclass(frozen=True, slots=True)
class Credential:
    """What a caller presented: the id of a login session or of an API key, and for a key the SHA-256 of its
    secret.
    """

    kind: Literal["login", "api_key"]
    id: str
    proof: str = ""

    @property
    def hot_name(self) -> str:
        """Name of its hot copy."""
        return keys.login_name(self.id) if self.kind == "login" else keys.api_key_name(self.id)


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller, as of now. An API key acts as its creator."""

    tenant_id: str
    user_id: str
    email: str
    name: str
    role: Role
    tier: Tier
    credential: Credential


@dataclass(frozen=True, slots=True)
class Wanted:
    """A hot document of the caller's own to bring along: `keys.owned_name(kind, …, id)`.

    `claim`: whether this reader would extend the document if told to (`HotRead.touch`).
    """

    kind: str
    id: str
    claim: bool = True


@dataclass(frozen=True, slots=True)
class Admission:
    """The outcome at the edge: who (None: nobody we know), where the request stands with its limits, and the
    document asked for.
    """

    principal: Principal | None
    charge: Charge
    wanted: HotRead = MISS


class Principals:
    """Admits callers. One a process."""

    def __init__(
        self,
        *,
        redis: RedisStore,
        mongo: MongoStore,
        hot: HotCopies,
        limits: RateLimits,
        clock: Clock,
        tiers: Mapping[Tier, Rate],
    ) -> None:
        """`tiers` gives the rate of each tier, whose policy must be the tier's name."""
        self._redis = redis
        self._mongo = mongo
        self._hot = hot
        self._limits = limits
        self._clock = clock
        self._tiers = tiers
        self._tier_arguments = (
            len(tiers),
            *(part for tier, rate in tiers.items() for part in (tier, rate.amount, rate.window_s * 1000)),
        )
        self._logins = mongo.collection("logins")
        self._users = mongo.collection("users")
        self._api_keys = mongo.collection("api_keys")

    async def admit(
        self,
        credential: Credential,
        *,
        anonymous: Limit,
        extra: Sequence[Rate] = (),
        twin: str = "",
        wanted: Wanted | None = None,
    ) -> Admission:
        """Say who the credential stands for, counting the request: the user's tier and `extra` rates, or
        `anonymous` if it is nobody's. Requests that name the same `twin` count once in `extra`.

        Hot: one round trip to Redis and none to MongoDB. Raises StoreUnavailableError if no store can say.
        """
        nonce = self._hot.new_nonce()
        name = credential.hot_name
        try:
            reply = await self._redis.run(
                principals_lua.ADMIT,
                (keys.GENERATION, keys.hot_copy(name), keys.hot_guard(name), anonymous.key),
                (
                    nonce,
                    keys.HOT_LEASE_TTL_MS,
                    keys.HOT_COPY_TTL_MS,
                    keys.HOT_TOUCH_CLAIM_MS if wanted and wanted.claim else 0,
                    credential.proof,
                    wanted.kind if wanted else "",
                    wanted.id if wanted else "",
                    anonymous.rate.amount,
                    anonymous.rate.window_s * 1000,
                    twin,
                    *self._tier_arguments,
                    *(part for rate in extra for part in (rate.policy, rate.amount, rate.window_s * 1000)),
                ),
            )
        except StoreUnavailableError:
            self._hot.count(name, "bypass")
            return await self._admit_from_record(
                credential, found=MISS, user=MISS, anonymous=anonymous, extra=extra, twin=twin
            )
        verdict = reply[0]
        found, user = HotRead.from_reply(reply[1], nonce), HotRead.from_reply(reply[2], nonce)
        self._hot.count(name, found.state)
        if verdict == b"unknown":
            return await self._admit_from_record(
                credential, found=found, user=user, anonymous=anonymous, extra=extra, twin=twin
            )
        if verdict == b"dead":
            return Admission(None, self._limits.charge([anonymous.rate], [anonymous.key], reply[3]))
        principal = _principal(credential, orjson.loads(found.head), orjson.loads(user.head))
        rates = (self._tiers[principal.tier], *extra)
        names = [keys.rate_window(rate.policy, principal.user_id) for rate in rates]
        if found.touch:
            await self._touch(credential)
        hot_document = MISS
        if wanted:
            hot_document = HotRead.from_reply(reply[4], nonce)
            self._hot.count(wanted.kind, hot_document.state)
        twins = [False, *(bool(twin) for _ in extra)]
        charge = self._limits.charge(rates, names, reply[3], twins=twins)
        return Admission(principal, charge, hot_document)

    async def _admit_from_record(
        self,
        credential: Credential,
        *,
        found: HotRead,
        user: HotRead,
        anonymous: Limit,
        extra: Sequence[Rate],
        twin: str,
    ) -> Admission:
        principal = await self._load(credential, found, user)
        if principal is None:
            return Admission(None, await self._limits.take([anonymous]))
        tier = Limit(self._tiers[principal.tier], principal.user_id)
        declared = (Limit(rate, principal.user_id, twin) for rate in extra)
        return Admission(principal, await self._limits.take([tier, *declared]))

    async def _load(self, credential: Credential, found: HotRead, user: HotRead) -> Principal | None:
        """Ask MongoDB, and put into the hot copies what their leases allow."""
        row = await self._find_credential(credential)
        name = credential.hot_name
        if row is None:
            await self._hot.bury(name, found.lease)
            return None
        await self._hot.fill(name, found.lease, self._credential_copy(credential, row))
        user_name = keys.user_name(row["tenant_id"], row["user_id"])
        lease = user.lease
        if found.lease:  # else Redis is gone, and asking it again would only cost another timeout
            lease = (await self._hot.read(user_name)).lease
        async with self._mongo.guard("users.find"):
            account = await self._users.find_one(
                {"_id": row["user_id"], "tenant_id": row["tenant_id"], "active": True}
            )
        if account is None:
            await self._hot.bury(user_name, lease)
            return None
        await self._hot.fill(user_name, lease, user_copy(account))
        if credential.kind == "login" and row["epoch"] != account["epoch"]:
            return None
        if credential.kind == "api_key" and not secrets.compare_digest(row["hash"], credential.proof):
            return None
        if credential.kind == "login" and self._touch_in_ms(row) <= 1:
            await self._touch(credential)
        return _principal(credential, row, account)

    async def _find_credential(self, credential: Credential) -> Document | None:
        if credential.kind == "login":
            async with self._mongo.guard("logins.find"):
                alive = unexpired(self._clock.now())
                return await self._logins.find_one({"_id": credential.id, **alive})
        async with self._mongo.guard("api_keys.find"):
            return await self._api_keys.find_one({"_id": credential.id})

    async def _touch(self, credential: Credential) -> None:
        """Move the end of a login session on. Fails in silence if MongoDB is away: a reader of the next copy
        tries again. The claim lasts as long as a copy can, so a copy is the cause of one write at most.

        No barrier: only `expires_at` moves, and a copy that ends earlier than its document is safe. Only what
        is alive is extended, so a deleted session stays deleted.
        """
        if credential.kind != "login":
            return
        try:
            async with self._mongo.guard("logins.touch"):
                await self._logins.update_one(
                    {"_id": credential.id, **unexpired(self._clock.now())},
                    [{"$set": {"last_seen_at": "$$NOW", "expires_at": idle_end()}}],
                )
        except StoreUnavailableError:
            _log.info("login_touch_skipped")

    def _credential_copy(self, credential: Credential, row: Document) -> HotCopy:
        owner = keys.owner(row["tenant_id"], row["user_id"])
        head = {key: row[key] for key in ("tenant_id", "user_id")}
        if credential.kind == "api_key":
            return HotCopy(
                orjson.dumps({**head, "tier": row["tier"]}), owner=owner, tier=row["tier"], proof=row["hash"]
            )
        return HotCopy(
            orjson.dumps(head),
            life_ms=self._ms_until(row["expires_at"]),
            touch_in_ms=self._touch_in_ms(row),
            owner=owner,
            epoch=str(row["epoch"]),
        )

    def _touch_in_ms(self, row: Document) -> int:
        share_ms: int = round(row["idle_s"] * TOUCH_SHARE * 1000)
        return max(1, self._ms_until(row["last_seen_at"]) + share_ms)

    def _ms_until(self, moment: datetime) -> int:
        return round((moment - self._clock.now()).total_seconds() * 1000)


def user_copy(account: Document) -> HotCopy:
    """Return the hot copy of an active user's document; writers of `users` fill with it."""
    fields = {key: account[key] for key in ("tenant_id", "email", "name", "role", "tier")}
    return HotCopy(
        orjson.dumps({**fields, "user_id": account["_id"]}), epoch=str(account["epoch"]), tier=account["tier"]
    )


def _principal(credential: Credential, found: Mapping[str, Any], account: Mapping[str, Any]) -> Principal:
    return Principal(
        tenant_id=found["tenant_id"],
        user_id=found["user_id"],
        email=account["email"],
        name=account["name"],
        role=account["role"],
        tier=found.get("tier") or account["tier"],
        credential=credential,
    )


def idle_end() -> Document:
    """Return a pipeline expression for when a login that is used now ends unless used again.

    Compared as numbers: the local cluster's engine takes any stored date to be less than any computed one.
    """
    idle_end_ms = {"$add": [{"$toLong": "$$NOW"}, {"$multiply": ["$idle_s", 1000]}]}
    return {"$toDate": {"$min": [{"$toLong": "$ends_at"}, idle_end_ms]}}
