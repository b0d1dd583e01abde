"""Application sessions: what a user left off at, on whichever replica they come back.

Guarantees
- A write through any replica is seen by the next read through any other (`hot`). A read of a hot session
  asks MongoDB nothing.
- Whether a session has expired is decided on every access, by a clock that follows MongoDB's; the TTL index
  only tidies up.
- Reading extends a session once EXTEND_SHARE of its time to live is spent: one write by one reader, filtered
  by "alive", which never moves `version` and can't bring back what was deleted.
- A write is compare-and-set on `version`. Concurrent merges are repeated on what they find, so all of them
  survive; a caller who named a version is told instead. Writes extend, too.
- Who names a version that is over is refused by the copy that came along with admission: no barrier, which
  would drop that copy, and no MongoDB. Versions only grow, so this is right even where a copy lags behind
  (`hot` says when one may). Who names a version newer than the copy's is answered by MongoDB.
- Nobody has more than SESSIONS_MAX sessions of a type, nor more than one of a type in SINGLE, however many
  are created at once: each takes a numbered slot under a unique index, and nothing is counted.

Does not guarantee: that an extension is recorded. If MongoDB can't be reached the read is answered all the
same, and a later one extends.

When Redis is gone: reads and writes go to MongoDB. When MongoDB is gone: what is hot can be read, for a
minute at most; everything else is StoreUnavailableError.

A request with an Idempotency-Key (`keyed`) commits its key in one transaction with the session. Not inside of
its document, which may be deleted or expire long before the key may, and which every reader would have to
load with a second copy of its data.

Documents: see `session_documents`. Copies: `session:{tenant}:{user}:{id}`. A write costs two scripts and one
update if it is alone, and a read if it is not hot; to be refused costs nothing where it is. Reads O(1), lists
O(page) by index.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeAlias

from pymongo.errors import DuplicateKeyError

from app.core.clock import Clock
from app.core.errors import CargoFlowError, NotFoundError, StoreUnavailableError, VersionConflictError
from app.core.ids import new_id
from app.core.moments import to_milliseconds, to_the_millisecond
from app.state.hot import MISS, HotCopies, HotRead
from app.state.idempotency import Idempotency
from app.state.keyed import Keyed
from app.state.mongo import ClientSession, Document, MongoStore, one_page, unexpired
from app.state.patience import Patience
from app.state.session_documents import (
    DEFAULT_TTL_S,
    Owner,
    Reading,
    Session,
    SessionType,
    encode_data,
    head_of,
    hot_name,
)
from app.state.session_slots import SessionLimitError, any_slot, free_slot
from app.state.turnstile import Turnstile
from app.state.versions import VersionCheck, any_version

_log = logging.getLogger(__name__)

Change = Callable[[Session], dict[str, Any] | None]
"""Returns the new data, or None to leave the session as it is. Pure: it is asked again when somebody else
wrote in between. May raise a CargoFlowError to refuse.
"""
Made: TypeAlias = tuple[Session, bool]
"""A session that was written, and whether it is new."""


async def ensure_indexes(mongo: MongoStore) -> None:
    """Create the indexes that the guarantees and queries here rest on. Safe while serving, and twice."""
    rows = mongo.collection("sessions")
    await rows.create_index(
        [("tenant_id", 1), ("user_id", 1), ("type", 1), ("slot", 1)], unique=True, name="one_session_a_slot"
    )
    await rows.create_index(
        [("tenant_id", 1), ("user_id", 1), ("created_at", -1), ("_id", -1), ("type", 1)], name="newest_first"
    )
    await rows.create_index("expires_at", expireAfterSeconds=0, name="tidy_up_expired")


class Sessions:
    """Creates, reads, changes and deletes sessions. One a process."""

    def __init__(self, *, mongo: MongoStore, hot: HotCopies, idempotency: Idempotency, clock: Clock) -> None:
        """`clock` must be one that follows MongoDB's, see `store_clock`."""
        self._mongo = mongo
        self._hot = hot
        self._idempotency = idempotency
        self._clock = clock
        self._rows = mongo.collection("sessions")
        self._turnstile = Turnstile()

    async def create(
        self,
        owner: Owner,
        session_type: SessionType,
        data: dict[str, Any],
        *,
        ttl_s: int | None = None,
        keyed: Keyed[Made] | None = None,
    ) -> Session:
        """Insert a session and return it. `ttl_s`: unless given, the type's default.

        Raises SessionLimitError, PayloadTooLargeError, StoreUnavailableError, and with a key what
        `Idempotency.run` raises.
        """
        now = self._now()
        ttl_s = ttl_s or DEFAULT_TTL_S[session_type]
        session = Session(
            id=new_id("ses"),
            type=session_type,
            json=encode_data(data),
            version=1,
            ttl_s=ttl_s,
            created_at=now,
            last_accessed_at=now,
            expires_at=now + timedelta(seconds=ttl_s),
        )
        slot = any_slot(session_type)
        while not await self._insert(owner, session, slot, keyed):
            slot = await free_slot(self._mongo, owner, session_type, self._now())
        return session

    async def put_single(
        self,
        owner: Owner,
        session_type: SessionType,
        data: dict[str, Any],
        *,
        ttl_s: int | None = None,
        keyed: Keyed[Made] | None = None,
    ) -> Made:
        """Write the one session of a type in SINGLE; True with it if it is new.

        Two who do so at once: one creates, the other replaces. Raises as `create` and `mutate` do, save for
        the limit, which only means that somebody else was quicker.
        """
        while True:
            async with self._mongo.guard("sessions.find_single"):
                row = await self._rows.find_one({**owner.filter, "type": session_type}, {"_id": 1})
            if row is not None:
                with suppress(NotFoundError):
                    put = await self.mutate(owner, row["_id"], lambda _: data, ttl_s=ttl_s, keyed=keyed)
                    return put, False
            with suppress(SessionLimitError):
                return await self.create(owner, session_type, data, ttl_s=ttl_s, keyed=keyed), True

    async def read(
        self, owner: Owner, session_id: str, seen: HotRead = MISS, *, extend: bool = True
    ) -> Reading:
        """Answer with a session, from the copy that was `seen` on the way in if it is a hit.

        `extend`: whether this is an access that keeps the session alive. Raises NotFoundError, and
        StoreUnavailableError if it is not hot and MongoDB is gone.
        """
        if seen.state == "gone":
            raise NotFoundError
        if seen.state == "hit":
            version, expires_at_ms, session_type = head_of(seen)
            if expires_at_ms > to_milliseconds(self._clock.now()):
                if extend and seen.touch:
                    return await self._extend_seen(owner, session_id, seen)
                return Reading(seen.body, version, session_type)
        name = hot_name(owner, session_id)
        session = await self._find(owner, session_id)
        if session is None:
            await self._hot.bury(name, seen.lease)
            raise NotFoundError
        if extend and session.extended_from <= self._now():
            session = await self._extend(owner, session)
        await self._hot.fill(name, seen.lease, session.copy(self._now()))
        return session.reading

    async def page(
        self,
        owner: Owner,
        *,
        session_type: SessionType | None = None,
        before: tuple[datetime, str] | None = None,
        limit: int,
    ) -> list[Session]:
        """Return up to `limit` living sessions, newest first, older than the one with this date and id.

        Does not extend them. Raises StoreUnavailableError.
        """
        owned = owner.filter if session_type is None else {**owner.filter, "type": session_type}
        alive = unexpired(self._now())
        async with self._mongo.guard("sessions.page"):
            rows = self._rows.aggregate(one_page(owned, also=alive, order=-1, after=before, limit=limit))
            return [Session.from_document(row) async for row in rows]

    async def mutate(
        self,
        owner: Owner,
        session_id: str,
        change: Change,
        seen: HotRead | None = None,
        *,
        check_version: VersionCheck = any_version,
        newest_named: int | None = None,
        ttl_s: int | None = None,
        keyed: Keyed[Made] | None = None,
    ) -> Session:
        """Give a session the data that `change` makes of it, one version on, and return it.

        `check_version` is asked before `change`; what it passed is what is written over. `newest_named`: the
        newest version that it may pass, where the caller named any; `seen`: the copy that was seen on the way
        in, which refuses what is over. `ttl_s`: a new time to live, from now on. Raises NotFoundError;
        VersionConflictError if others keep writing for longer than anybody should wait; CrowdedError if too
        many wait already; PayloadTooLargeError; StoreUnavailableError; and whatever these two raise.
        """
        name = hot_name(owner, session_id)
        async with self._turnstile.turn(name) as waited:
            found = None
            if newest_named is not None:
                looked = None if waited else seen  # what others did meanwhile decides most who wait
                found = await self._refuse_if_over(owner, session_id, looked, check_version, newest_named)
            async with self._hot.writing(name) as write:
                session = self._alive(write.before) or found
                if session is None or not _passes(check_version, session.version):
                    session = await self._get(owner, session_id)
                patience = Patience(self._clock)
                while True:
                    check_version(session.version)
                    data = change(session)
                    if data is None:
                        changed: Session | None = session
                    else:
                        changed = await self._replace(owner, session, encode_data(data), ttl_s, keyed)
                    if changed is not None:
                        write.fill(changed.copy(self._now()))
                        return changed
                    session = await self._get(owner, session_id)
                    if not await patience.wait():
                        raise VersionConflictError(current_version=session.version)

    async def delete(self, owner: Owner, session_id: str, *, version: int | None = None) -> None:
        """Delete a session; with `version`, only as of that one.

        Raises NotFoundError if there is none, or not any more; VersionConflictError.
        """
        as_of = {} if version is None else {"version": version}
        async with self._hot.writing(hot_name(owner, session_id)) as write:
            async with self._mongo.guard("sessions.delete"):
                wanted = {"_id": session_id, **owner.filter, **as_of, **unexpired(self._now())}
                result = await self._rows.delete_one(wanted)
            if result.deleted_count == 0 and version is not None:
                raise VersionConflictError(current_version=(await self._get(owner, session_id)).version)
            write.bury()
        if result.deleted_count == 0:
            raise NotFoundError

    def _now(self) -> datetime:
        return to_the_millisecond(self._clock.now())

    def _alive(self, before: HotRead) -> Session | None:
        """Return what a writer's dropped copy held; under its barrier that equals what MongoDB holds."""
        if before.state != "hit":
            return None
        session = Session.from_copy(before)
        return session if session.expires_at > self._now() else None

    async def _refuse_if_over(
        self,
        owner: Owner,
        session_id: str,
        seen: HotRead | None,
        check_version: VersionCheck,
        newest_named: int,
    ) -> Session | None:
        """Raise what `check_version` raises if all versions it could pass are over.

        Looks, unless told what was `seen`. Returns the session if MongoDB had to be asked; a refusal then
        leaves a copy to the next. Raises NotFoundError.
        """
        name = hot_name(owner, session_id)
        if seen is None:
            seen = await self._hot.read(name, claim=False)
        if seen.state == "gone":
            raise NotFoundError
        if seen.state == "hit":
            version, expires_at_ms, _ = head_of(seen)
            if version > newest_named and expires_at_ms > to_milliseconds(self._clock.now()):
                check_version(version)
            return None
        session = await self._find(owner, session_id)
        if session is None:
            await self._hot.bury(name, seen.lease)
            raise NotFoundError
        try:
            check_version(session.version)
        except CargoFlowError:
            await self._hot.fill(name, seen.lease, session.copy(self._now()))
            raise
        return session

    async def _find(self, owner: Owner, session_id: str) -> Session | None:
        async with self._mongo.guard("sessions.find"):
            row = await self._rows.find_one({"_id": session_id, **owner.filter, **unexpired(self._now())})
        return None if row is None else Session.from_document(row)

    async def _get(self, owner: Owner, session_id: str) -> Session:
        session = await self._find(owner, session_id)
        if session is None:
            raise NotFoundError
        return session

    async def _replace(
        self, owner: Owner, session: Session, json: bytes, ttl_s: int | None, keyed: Keyed[Made] | None
    ) -> Session | None:
        """Commit new data over the version that was read; None if that is not the current one, or dead."""
        now = self._now()
        changed = replace(
            session,
            json=json,
            version=session.version + 1,
            ttl_s=ttl_s or session.ttl_s,
            last_accessed_at=now,
            expires_at=now + timedelta(seconds=ttl_s or session.ttl_s),
        )
        fields = {"data": json.decode(), "version": changed.version, "ttl_s": changed.ttl_s}
        ends = {"last_accessed_at": now, "expires_at": changed.expires_at}
        # A writer that was paused in here must not move the end back, unless the life itself gets shorter.
        update = {"$set": fields, "$max": ends} if ttl_s is None else {"$set": {**fields, **ends}}
        write = partial(self._update, owner, session, update)
        return changed if await self._idempotency.write(keyed, write, (changed, False)) else None

    async def _extend(self, owner: Owner, session: Session) -> Session:
        """Move the end on and return the session as it is now; as it was if MongoDB is gone.

        Raises NotFoundError if it was deleted or expired meanwhile.
        """
        now = self._now()
        end = now + timedelta(seconds=session.ttl_s)
        try:
            if await self._update(owner, session, {"$max": {"last_accessed_at": now, "expires_at": end}}):
                return replace(session, last_accessed_at=now, expires_at=end)
            return await self._get(owner, session.id)
        except StoreUnavailableError:
            _log.info("session_extension_skipped")
            return session

    async def _extend_seen(self, owner: Owner, session_id: str, seen: HotRead) -> Reading:
        """Extend what was read from its copy, and show the new end in the copy, too.

        No barrier: only dates move, and with MongoDB gone a barrier would leave nothing to read.
        """
        session = Session.from_copy(seen)
        extended = await self._extend(owner, session)
        if extended.version == session.version and extended is not session:
            await self._hot.swap(hot_name(owner, session_id), seen, extended.copy(self._now()))
        return extended.reading

    async def _update(
        self, owner: Owner, session: Session, update: Document, within: ClientSession = None
    ) -> bool:
        """Update the session if it is alive and still what was read."""
        alive = unexpired(self._now())
        wanted = {"_id": session.id, **owner.filter, "version": session.version, **alive}
        async with self._mongo.guard("sessions.update"):
            result = await self._rows.update_one(wanted, update, session=within)
        matched: int = result.matched_count
        return matched == 1

    async def _insert(self, owner: Owner, session: Session, slot: int, keyed: Keyed[Made] | None) -> bool:
        """Insert under a slot; False if it is taken."""

        async def write(within: ClientSession) -> bool:
            try:
                async with self._mongo.guard("sessions.insert"):
                    await self._rows.insert_one(session.document(owner, slot), session=within)
            except DuplicateKeyError:
                return False
            return True

        return await self._idempotency.write(keyed, write, (session, True))


def _passes(check_version: VersionCheck, version: int) -> bool:
    try:
        check_version(version)
    except CargoFlowError:
        return False
    return True
