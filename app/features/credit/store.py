"""Applications in MongoDB.

Guarantees
- What the caller may not see does not exist: the tenant, and for all but underwriters and admins the owner,
  are in every query.
- A write names the version that it read, in its filter. It moves the version on and appends the event that
  says who did what, in the same update: of any number of writers of one version one wins, and there is no
  change without its event, no event without its change, and none twice.
- An application is there with its first event, its outbox and the key of the request that made it, or not at
  all. It is never deleted.

Does not guarantee that a page and its total are of the same moment.

A write costs a read and an update, both by id. The history is only read where it is shown (`events`). When
MongoDB is gone: StoreUnavailableError; a write whose answer was lost may have happened: repeated with the
same version it is a conflict, and the history says whose it was. Redis is only told of new jobs. The document
is described in `documents`, its indexes are in `state.feature_indexes`. Source of the algorithm: as for
`state.documents`, whose writes can't append.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Literal, TypeAlias

from pymongo import UpdateOne

from app.core.errors import NotFoundError, StoreUnavailableError, VersionConflictError
from app.features.credit.transitions import Status
from app.state.documents import Scope
from app.state.job_documents import NewJob
from app.state.keyed import Keyed
from app.state.kit import StateKit
from app.state.mongo import ClientSession, Document
from app.state.patience import Patience
from app.state.principals import Principal, Role
from app.state.versions import VersionCheck, any_version

COLLECTION: Final = "applications"
REVIEWERS: Final[tuple[Role, ...]] = ("underwriter", "admin")
"""Who sees all applications of their tenant, and decides. Everybody else sees their own."""
NOBODY: Final = ""
"""In Filters: nobody looks after it."""

Sort = Literal[
    "-created_at", "created_at", "-requested_amount", "requested_amount", "company_name", "-company_name"
]
_SORTED_BY: Final = {
    "created_at": "created_at",
    "requested_amount": "requested_amount.amount_minor",
    "company_name": "company_key",
}
_REACHES: Final = (timedelta(days=1), timedelta(days=30))
_UNREAD: Final = {"history": 0, "outbox": 0, "idempotency": 0}


@dataclass(frozen=True, slots=True)
class Change:
    """What a write does to an application: the event, whose status it gets, further fields, and what follows.

    The write completes the event with the version that it makes.
    """

    event: Document
    fields: Mapping[str, Any] = field(default_factory=dict)
    jobs: Sequence[NewJob] = ()


Decide: TypeAlias = Callable[[Document], Change]
"""Given an application as it is, without its history, says what to do. Raises to refuse.

It is asked again whenever somebody else wrote in between, so it must do nothing else.
"""


@dataclass(frozen=True, slots=True)
class Filters:
    """What a list is narrowed to. `reviewer`: a user's id, or NOBODY."""

    status: Status | None = None
    reviewer: str | None = None

    def query(self, scope: Scope) -> tuple[Document, Document]:
        """Return a filter that an index serves, and what else must hold of what it finds."""
        equal: Document = dict(scope)
        if self.status is not None:
            equal["status"] = self.status
        if self.reviewer is not None:
            equal["reviewer.user_id"] = None if self.reviewer == NOBODY else self.reviewer
        few = next((name for name in ("user_id", "reviewer.user_id", "status") if name in equal), "tenant_id")
        indexed = {name: equal[name] for name in ("tenant_id", few)}
        return indexed, {name: equal[name] for name in equal.keys() - indexed.keys()}


def scope_of(caller: Principal) -> dict[str, str]:
    """Return the part of every query that keeps out what the caller may not see."""
    if caller.role in REVIEWERS:
        return {"tenant_id": caller.tenant_id}
    return {"tenant_id": caller.tenant_id, "user_id": caller.user_id}


class ApplicationStore:
    """The applications of all tenants. Cheap to make. Applications come without their history."""

    def __init__(self, kit: StateKit) -> None:
        """Take from the kit what it needs."""
        self._mongo = kit.mongo
        self._clock = kit.clock
        self._jobs = kit.jobs
        self._idempotency = kit.idempotency
        self._rows = kit.mongo.collection(COLLECTION)

    async def insert(
        self, document: Document, jobs: Sequence[NewJob], keyed: Keyed[Document] | None
    ) -> Document:
        """Insert an application and what follows from it, and return it.

        Raises with a key what `Idempotency.insert` raises.
        """
        row = {**document, "outbox": self._jobs.outbox(jobs)}
        await self._idempotency.insert(COLLECTION, row, keyed, document)
        await self._relay(document["_id"])
        return document

    async def get(self, scope: Scope, application_id: str, *, session: ClientSession = None) -> Document:
        """Return an application. Raises NotFoundError, also for what lies outside of `scope`."""
        pipeline = _only(scope, application_id)
        async with self._mongo.guard("applications.find"):
            found = await anext(self._rows.aggregate(pipeline, session=session), None)
        if found is None:
            raise NotFoundError
        return found

    async def events(self, scope: Scope, application_id: str, *, after: int, limit: int) -> list[Document]:
        """Return up to `limit` events, oldest first, from the one that made version `after` + 1 on.

        Raises NotFoundError.
        """
        wanted = {"version": 1, "history": {"$slice": [after, limit]}}
        async with self._mongo.guard("applications.events"):
            found = await self._rows.find_one(_identity(scope, application_id), wanted)
        if found is None:
            raise NotFoundError
        events: list[Document] = found["history"]
        return events

    async def page(
        self, scope: Scope, filters: Filters, *, sort: Sort, skip: int, limit: int
    ) -> list[Document]:
        """Return up to `limit` applications in this order, after the first `skip`; ids decide between equals.

        O(skip + limit) on a MongoDB. The local cluster's engine sorts all that match, at 100 ms a thousand,
        so the newest are looked for no further back than they must be.
        """
        indexed, also = filters.query(scope)
        order = -1 if sort.startswith("-") else 1
        now = self._clock.now()
        for reach in (*(_REACHES if sort == "-created_at" else ()), None):
            recent = {} if reach is None else {"created_at": {"$gte": now - reach}}
            pipeline: list[Document] = [
                {"$match": {**indexed, **recent}},
                *([{"$match": also}] if also else []),
                {"$sort": {_SORTED_BY[sort.lstrip("-")]: order, "_id": order}},
                {"$skip": skip},
                {"$limit": limit},
                {"$project": _UNREAD},
            ]
            async with self._mongo.guard("applications.page"):
                rows = [row async for row in self._rows.aggregate(pipeline)]
            if len(rows) == limit:
                break
        return rows

    async def count(self, scope: Scope, filters: Filters, *, at_most: int | None = None) -> int:
        """Return how many there are, which an index tells; no more than `at_most` are counted."""
        indexed, also = filters.query(scope)
        limited: dict[str, Any] = {} if at_most is None else {"limit": at_most}
        async with self._mongo.guard("applications.count"):
            return await self._rows.count_documents({**indexed, **also}, **limited)

    async def change(
        self,
        scope: Scope,
        application_id: str,
        decide: Decide,
        *,
        check_version: VersionCheck = any_version,
        session: ClientSession = None,
    ) -> Document:
        """Do what `decide` says and return the application as it is then.

        With the `session` of a transaction it happens if and only if that commits; what follows is then left
        to a worker. Raises NotFoundError, what `check_version` raises about the version that is written over,
        what `decide` raises, VersionConflictError if others keep writing.
        """
        patience: Patience | None = None
        while True:
            before = await self.get(scope, application_id, session=session)
            check_version(before["version"])
            change = decide(before)
            if await self._write(scope, before, change, session):
                break
            patience = patience or Patience(self._clock)
            if not await patience.wait():
                raise VersionConflictError(current_version=before["version"])
        if change.jobs and session is None:
            await self._relay(application_id)
        return _after(before, change)

    async def find_many(self, scope: Scope, application_ids: Sequence[str]) -> dict[str, Document]:
        """Return those applications that there are, by id."""
        wanted = {"_id": {"$in": list(application_ids)}, **scope}
        async with self._mongo.guard("applications.find_many"):
            return {row["_id"]: row async for row in self._rows.find(wanted, _UNREAD)}

    async def find_made(self, scope: Scope, events: Mapping[str, str]) -> dict[str, tuple[int, int | None]]:
        """Return the current version, and the one that an event made if there is such an event, by id.

        `events` names one event's id for each application's.
        """
        wanted = {"_id": {"$in": list(events)}, **scope}
        fields = {"version": 1, "history": {"$elemMatch": {"id": {"$in": list(events.values())}}}}
        async with self._mongo.guard("applications.find_made"):
            rows = [row async for row in self._rows.find(wanted, fields)]
        made = {row["_id"]: row.get("history") or [] for row in rows}
        return {row["_id"]: (row["version"], _version_of(made[row["_id"]])) for row in rows}

    async def change_many(self, scope: Scope, changes: Sequence[tuple[Document, Change]]) -> bool:
        """Write over each of these applications as of the version that it has here, in one round trip.

        Returns True if all were written. Otherwise some were not: `find_made` says which. What follows is
        left to a worker.
        """
        writes = [
            UpdateOne(_as_of(scope, before), self._update(before, change)) for before, change in changes
        ]
        async with self._mongo.guard("applications.update_many"):
            result = await self._rows.bulk_write(writes, ordered=False)
        return result.matched_count == len(changes)

    async def _write(self, scope: Scope, before: Document, change: Change, session: ClientSession) -> bool:
        async with self._mongo.guard("applications.update"):
            result = await self._rows.update_one(
                _as_of(scope, before), self._update(before, change), session=session
            )
        return result.matched_count == 1

    def _update(self, before: Document, change: Change) -> Document:
        pushed: Document = {"history": {**change.event, "version": before["version"] + 1}}
        if change.jobs:
            pushed["outbox"] = {"$each": self._jobs.outbox(change.jobs)}
        return {"$set": _changed(change), "$inc": {"version": 1}, "$push": pushed}

    async def _relay(self, application_id: str) -> None:
        with suppress(StoreUnavailableError):  # a worker does it in a few seconds
            await self._jobs.relay(COLLECTION, application_id)


def _identity(scope: Scope, application_id: str) -> Document:
    """Return the filter, `_id` first (`state.documents` says why); a scope without a tenant is a KeyError."""
    return {"_id": application_id, **scope, "tenant_id": scope["tenant_id"]}


def _only(scope: Scope, application_id: str) -> list[Document]:
    """Return the pipeline that finds it, without what is not read.

    A MongoDB puts the two conditions together. The local cluster's engine looks an `_id` up at once where it
    stands alone, and else considers every index: 0.4 ms against 1.3, and a third more of ours for `find_one`.
    """
    owned = {**scope, "tenant_id": scope["tenant_id"]}
    return [{"$match": {"_id": application_id}}, {"$match": owned}, {"$project": _UNREAD}]


def _as_of(scope: Scope, before: Document) -> Document:
    return {**_identity(scope, before["_id"]), "version": before["version"]}


def _changed(change: Change) -> Document:
    return {**change.fields, "status": change.event["status"], "updated_at": change.event["at"]}


def _after(before: Document, change: Change) -> Document:
    return {**before, **_changed(change), "version": before["version"] + 1}


def _version_of(events: Sequence[Document]) -> int | None:
    return events[0]["version"] if events else None
