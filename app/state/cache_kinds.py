"""What may be cached, and whose it is: declared once, in a feature, while its module is imported.

    LANE_QUOTES = CacheKind(
        "lane_quote", scope="tenant", key=("tenant_id", "lane", "equipment"), ttl_s=300, stale_s=3600
    )
    BOOKING_LISTS = CacheKind("booking_list", scope="user", key=("tenant_id", "user_id", "status"), ttl_s=30)

A kind says its scope, and its key must begin with what that scope demands: a kind per user without tenant and
user in its key raises CacheKindError, and a process that imports it does not start. An entry is made by
naming every part of the key, so there is no way to write one without its owner.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import orjson

from app.state import keys

Scope = Literal["shared", "tenant", "user"]
Part: TypeAlias = str | int | bool | None

OWNER: Final[dict[Scope, tuple[str, ...]]] = {
    "shared": (),
    "tenant": ("tenant_id",),
    "user": ("tenant_id", "user_id"),
}
"""What the key of a kind begins with, by scope."""
BODY_MAX_BYTES: Final = 256 * 1024
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
_OWNER_ID: Final = re.compile(r"[A-Za-z0-9_-]+")
_EVERY_KIND: Final = "*"

_declared: dict[str, "CacheKind"] = {}
"""Filled by imports, read by nothing but the check that a name means one thing."""


class CacheKindError(Exception):
    """A kind of entry is declared, or used, in a way that would let one caller read another's. A mistake in
    the code, not in a request.
    """


@dataclass(frozen=True, slots=True)
class CacheTarget:
    """What can be invalidated at once: the fields called `field` of one hash in Redis, see `cache_lua`."""

    hash_key: str
    field: str


@dataclass(frozen=True, slots=True)
class CacheKind:
    """One kind of entry. `ttl_s` is how long an entry is fresh at most; `stale_s` how long after that it may
    still be served when loading a new one fails. A larger body than `body_max_bytes` is served but not kept.
    """

    name: str
    scope: Scope
    key: tuple[str, ...]
    ttl_s: float
    stale_s: float = 0.0
    body_max_bytes: int = BODY_MAX_BYTES

    def __post_init__(self) -> None:
        """Raise CacheKindError for a declaration that can't be kept."""
        owner = OWNER[self.scope]
        others = self.key[len(owner) :]
        if self.key[: len(owner)] != owner:
            raise CacheKindError(
                f"{self.name} is cached per {self.scope}: its key must begin with {', '.join(owner)}."
            )
        if "tenant_id" in others or "user_id" in others:
            raise CacheKindError(
                f"{self.name} has an owner in its key that its scope {self.scope!r} knows nothing of."
            )
        if not _NAME.fullmatch(self.name) or len(set(self.key)) != len(self.key):
            raise CacheKindError(f"{self.name} must be a plain name, with every part of its key once.")
        if not (self.ttl_s > 0 <= self.stale_s and self.life_ms <= keys.CACHE_LIFE_MAX_MS):
            raise CacheKindError(
                f"{self.name} must live for some time, {keys.CACHE_LIFE_MAX_MS // 1000} s in all at most."
            )
        if _declared.setdefault(self.name, self) != self:
            raise CacheKindError(f"{self.name} is declared twice, differently.")

    @property
    def life_ms(self) -> int:
        """How long an entry may be in Redis."""
        return round((self.ttl_s + self.stale_s) * 1000)

    def entry(self, **parts: Part) -> "CacheEntry":
        """Return the entry with this key. Raises CacheKindError unless every part is named, owners as ids."""
        if parts.keys() != set(self.key):
            raise CacheKindError(f"An entry of {self.name} is named by {', '.join(self.key) or 'nothing'}.")
        owner = [_owner_id(self.name, parts[name]) for name in OWNER[self.scope]]
        others = [parts[name] for name in self.key[len(owner) :]]
        digest = hashlib.blake2b(orjson.dumps(others), digest_size=16).hexdigest()
        return CacheEntry(
            self,
            keys.cache_entry(self.name, owner, digest),
            tuple(keys.cache_owner(owner[: depth + 1]) for depth in range(len(owner)))
            or (keys.cache_owner([]),),
        )

    def all(self, **owner: str) -> CacheTarget:
        """Return, to be invalidated, all entries of this kind: of a tenant, of a user, or of everybody if it
        is shared. Raises CacheKindError for an owner that the scope knows nothing of.
        """
        names = OWNER[self.scope]
        given = names[: len(owner)]
        if set(given) != owner.keys() or bool(owner) != bool(names):
            raise CacheKindError(f"{self.name} is cached per {self.scope}: all of whose?")
        ids = [_owner_id(self.name, owner[name]) for name in given]
        return CacheTarget(keys.cache_owner(ids), self.name)


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """One entry. `owners` are the hashes that hold the generations it depends on, widest first."""

    kind: CacheKind
    hash_key: str
    owners: tuple[str, ...]

    @property
    def target(self) -> CacheTarget:
        """This entry alone, to be invalidated."""
        return CacheTarget(self.hash_key, self.kind.name)


def everything_of(*, tenant_id: str, user_id: str | None = None) -> CacheTarget:
    """Return, to be invalidated, whatever is cached per user for this one, of every kind; without a user,
    whatever is cached of the tenant or of any user of it.
    """
    owner = (tenant_id,) if user_id is None else (tenant_id, user_id)
    return CacheTarget(keys.cache_owner([_owner_id("everything", part) for part in owner]), _EVERY_KIND)


def _owner_id(name: str, value: Part) -> str:
    if not isinstance(value, str) or not _OWNER_ID.fullmatch(value):
        raise CacheKindError(f"An entry of {name} can't belong to {value!r}.")
    return value
