"""Long lists, newest first, of which a page is read without what lies behind it.

    rows = await kit.newest_first.page("bookings", {"tenant_id": …}, before=before, limit=20)
    await kit.newest_first.grew("bookings", document)                     # after the commit of an insert

A MongoDB that has the index (equalities, `created_at`, `_id`) stops at the end of a page by itself. The local
cluster's engine reads and sorts all that match, 25 ms for each thousand. So a page is looked for in a window
of time that is likely to hold little more than it, and in longer ones behind that until it is full. Where the
first window begins is known from the list's *feed*: the dates of its newest KEPT entries, in Redis.

Guarantees: a page is what MongoDB has, in order, with nothing left out, whatever Redis says; a feed is a
hint, and one that is wrong, short or gone costs a few reads more, of windows with little in them.
Does not guarantee a short read of a great many entries that were made at one moment, or in a burst that no
feed knows of, behind a long time without any.

When Redis is gone: windows begin at now. When MongoDB is gone: StoreUnavailableError. Key: `keys.feed`, KEPT
dates at most, TTL FEED_TTL_MS from the last entry; kept for a tenant's list and for each user's. Cost: a
script and one aggregation where the feed is known, else up to eight aggregations and two scripts.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

from app.core.clock import Clock
from app.core.errors import StoreUnavailableError
from app.core.moments import from_milliseconds, to_milliseconds
from app.state import keys
from app.state.mongo import Document, MongoStore, one_page
from app.state.redis import RedisStore, Script

KEPT: Final = 128
"""More than a page has: the largest asks for 101 to learn whether there are more."""
_WINDOWS: Final = tuple(timedelta(seconds=10 * 20**power) for power in range(6))
"""How much further back each look goes: 10 s, 3 min, 1 h, 22 h, 18 d, a year; then all."""
_BEGINNING: Final = from_milliseconds(0)
"""The date that says in a feed: there is nothing older."""
_MOMENT: Final = timedelta(milliseconds=1)
"""What dates are whole ones of."""
_FEED: Final = frozenset({"tenant_id", "user_id"})
"""What a list that has a feed is narrowed to, by one or both."""

_GREW = Script(
    "feeds.grew",
    f"""
for _, feed in ipairs(KEYS) do
  redis.call('LPUSH', feed, ARGV[1])
  redis.call('LTRIM', feed, 0, {KEPT - 1})
  redis.call('PEXPIRE', feed, {keys.FEED_TTL_MS})
end
""",
)
_BEGINS = Script(
    "feeds.begins",
    """
local full = redis.call('LINDEX', KEYS[1], ARGV[1])
return {full or redis.call('LINDEX', KEYS[1], -1) or '', full and 1 or 0}
""",
)
_LEARN = Script(
    "feeds.learn",
    f"""
redis.call('DEL', KEYS[1])
redis.call('RPUSH', KEYS[1], unpack(ARGV))
redis.call('PEXPIRE', KEYS[1], {keys.FEED_TTL_MS})
""",
)


class NewestFirst:
    """Reads pages. One a process."""

    def __init__(self, *, mongo: MongoStore, redis: RedisStore, clock: Clock) -> None:
        """`clock` must be one that follows MongoDB's, see `store_clock`."""
        self._mongo = mongo
        self._redis = redis
        self._clock = clock

    async def grew(self, name: str, document: Document) -> None:
        """Note an inserted document of the collection `name`. Without Redis it is found all the same."""
        tenant_id, user_id = document["tenant_id"], document["user_id"]
        feeds = (keys.feed(name, tenant_id), keys.feed(name, tenant_id, user_id))
        with suppress(StoreUnavailableError):
            await self._redis.run(_GREW, feeds, (to_milliseconds(document["created_at"]),))

    async def page(
        self,
        name: str,
        owned: Document,
        *,
        before: tuple[datetime, str] | None,
        limit: int,
        also: Document | None = None,
    ) -> list[Document]:
        """Return up to `limit` documents of the collection `name` that equal `owned` and match `also`, newest
        first, older than the one with the date and id `before`. `owned` names the tenant.
        """
        feed = keys.feed(name, *(owned[field] for field in ("tenant_id", "user_id") if field in owned))
        begins, is_known = (None, True) if before is not None else await self._begins(feed, limit)
        rows: list[Document] = []
        after = before
        for since in self._windows(begins, before):
            window = between(since, after)
            pipeline = one_page(
                {**owned, **window}, also=also, order=-1, after=after, limit=limit - len(rows)
            )
            async with self._mongo.guard(f"{name}.page"):
                rows += [row async for row in self._mongo.collection(name).aggregate(pipeline)]
            if len(rows) == limit or since is None or since == _BEGINNING:
                break
            after = (since, "")
        if not is_known and owned.keys() <= _FEED and not also:
            await self._learn(feed, rows, are_all=len(rows) < limit)
        return rows

    async def _begins(self, feed: str, limit: int) -> tuple[datetime | None, bool]:
        """Return since when a list has `limit` entries, as far as is known, and if it needs no learning."""
        try:
            date, is_full = await self._redis.run(_BEGINS, (feed,), (limit - 1,))
        except StoreUnavailableError:
            return None, True
        if not date:
            return None, False
        begins = from_milliseconds(int(date))
        return begins, bool(is_full) or begins == _BEGINNING

    def _windows(
        self, begins: datetime | None, before: tuple[datetime, str] | None
    ) -> Iterator[datetime | None]:
        """Return where each look begins, the nearest first; None is the beginning of time."""
        place = self._clock.now() if before is None else before[0]
        if begins is not None:
            place = begins
            yield begins
        for window in _WINDOWS:
            place -= window
            yield place
        yield None

    async def _learn(self, feed: str, rows: Sequence[Document], *, are_all: bool) -> None:
        dates = [row["created_at"] for row in rows] + ([_BEGINNING] if are_all else [])
        with suppress(StoreUnavailableError):
            await self._redis.run(_LEARN, (feed,), [to_milliseconds(date) for date in dates])


def between(since: datetime | None, after: tuple[datetime, str] | None) -> Document:
    """Return the filter of what was made since one moment and no later than another, which the index serves.

    It begins and ends a moment too far out, for within a compound index the local cluster's engine leaves out
    of `$gte` and `$lte` what is equal.
    """
    ends = {
        **({} if since is None else {"$gt": since - _MOMENT}),
        **({} if after is None else {"$lt": after[0] + _MOMENT}),
    }
    return {"created_at": ends} if ends else {}
