"""A tenant always keeps an active admin, whoever stops being one at the same moment.

Admins are rows of `users`; that one of them remains is a fact about all rows, which no single update can
check. So whoever is about to take an admin's role away (or to deactivate one) first puts a *mark* {user_id,
user_version} into the tenant's document, by compare-and-set on its `roster`, and only if another active
admin without a mark remains. The write that follows names that version of the user.

Guarantees: at every moment some active admin has no mark that could still take effect. Two admins who
demote each other at once: one succeeds. A mark means nothing once its user's version has moved, because the
write it announces can't land any more; hence nothing has to be removed by whoever was killed half-way.

A mark left behind by a dead replica hides an admin who is one. When only such an admin would remain, the
mark is waited for shortly, then made void by moving that user's version on; if its owner lives after all,
that write fails and starts over.

Does not guarantee anything about writes to `role` or `active` that don't ask here first.

Documents: `tenants` {roster: int, leaving: [{user_id, user_version}]}. Cost: one read of the tenant, one of
its admins by index, one update; only for writes that end an admin.
"""

from itertools import count

from app.core.clock import Clock
from app.core.errors import ConflictError, NotFoundError
from app.state.mongo import Document, MongoStore
from app.state.patience import Patience

_TRIES_BEFORE_VOIDING = 6
"""So often a mark of another is waited for before it is made void."""


class LastAdminError(ConflictError):
    """The tenant would be left without an active admin."""

    code, title = "last_admin", "Last admin"

    def __init__(self) -> None:
        """Say what would help."""
        super().__init__("This is the only active admin. Make somebody else an admin first.")


class LastAdmin:
    """Lets admins go as long as one remains."""

    def __init__(self, mongo: MongoStore, clock: Clock) -> None:
        """`clock` measures how long to compete with others."""
        self._mongo = mongo
        self._clock = clock
        self._tenants = mongo.collection("tenants")
        self._users = mongo.collection("users")

    async def let_go(self, *, tenant_id: str, user_id: str, user_version: int) -> None:
        """Return once the admin, as of that version, may be written as no admin any more.

        The caller's write must name `user_version` in its filter and move it. Raises LastAdminError,
        NotFoundError without such a tenant, ConflictError if others keep changing roles at the same time.
        """
        mark = {"user_id": user_id, "user_version": user_version}
        patience = Patience(self._clock)
        for attempt in count():
            tenant = await self._get_tenant(tenant_id)
            admins = await self._active_admins(tenant_id)
            pending = [row for row in tenant["leaving"] if admins.get(row["user_id"]) == row["user_version"]]
            others = admins.keys() - {user_id}
            hidden = [row for row in pending if row["user_id"] in others]
            if others - {row["user_id"] for row in hidden}:
                if await self._put(tenant, [row for row in pending if row != mark] + [mark]):
                    return
            elif not hidden:
                raise LastAdminError
            elif attempt >= _TRIES_BEFORE_VOIDING:
                await self._void(tenant_id, hidden[0])
            if not await patience.wait():
                raise ConflictError("Roles are being changed by others at the same time. Try again.")

    async def _get_tenant(self, tenant_id: str) -> Document:
        async with self._mongo.guard("tenants.find_roster"):
            tenant: Document | None = await self._tenants.find_one(
                {"_id": tenant_id}, {"roster": 1, "leaving": 1}
            )
        if tenant is None:
            raise NotFoundError
        return tenant

    async def _active_admins(self, tenant_id: str) -> dict[str, int]:
        """Return versions by id. Read after the roster: a mark made in between fails the compare-and-set."""
        async with self._mongo.guard("users.find_admins"):
            rows = self._users.find({"tenant_id": tenant_id, "role": "admin", "active": True}, {"version": 1})
            return {row["_id"]: row["version"] async for row in rows}

    async def _put(self, tenant: Document, leaving: list[Document]) -> bool:
        async with self._mongo.guard("tenants.update_roster"):
            result = await self._tenants.update_one(
                {"_id": tenant["_id"], "roster": tenant["roster"]},
                {"$set": {"leaving": leaving}, "$inc": {"roster": 1}},
            )
        return result.matched_count == 1

    async def _void(self, tenant_id: str, mark: Document) -> None:
        async with self._mongo.guard("users.void_mark"):
            await self._users.update_one(
                {"_id": mark["user_id"], "tenant_id": tenant_id, "version": mark["user_version"]},
                {"$inc": {"version": 1}},
            )
