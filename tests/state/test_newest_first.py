"""Pages of long lists are what MongoDB has, whatever Redis knows of them, and are read without the rest."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from app.core.ids import new_id
from app.core.moments import to_milliseconds
from app.state import keys
from app.state.kit import StateKit
from app.state.mongo import Document
from app.state.newest_first import KEPT, between

LIST = "bookings"
LIMIT = 7


def made(count: int, *, start: datetime, step: timedelta, tenant_id: str) -> list[Document]:
    """Documents of two users, a step between them."""
    return [
        {
            "_id": new_id("bkg"),
            "number": new_id("no"),
            "tenant_id": tenant_id,
            "user_id": f"usr_{number % 2}",
            "status": "booked" if number % 3 else "closed",
            "created_at": start + step * number,
        }
        for number in range(count)
    ]


def in_order(rows: Sequence[Document]) -> list[str]:
    newest_first = sorted(rows, key=lambda row: (row["created_at"], row["_id"]), reverse=True)
    return [row["_id"] for row in newest_first]


async def walk(kit: StateKit, owned: Document, *, also: Document | None = None) -> list[str]:
    """The ids of a whole list, read a page at a time."""
    seen: list[str] = []
    before = None
    while True:
        rows = await kit.newest_first.page(LIST, owned, also=also, before=before, limit=LIMIT)
        seen += [row["_id"] for row in rows]
        if len(rows) < LIMIT:
            return seen
        before = (rows[-1]["created_at"], rows[-1]["_id"])


def reads(kit: StateKit) -> float:
    """How many pages were asked of MongoDB."""
    rows = kit.metrics._commands.rows
    return sum(sum(row[:-1]) for labels, row in rows.items() if labels[1] == f"{LIST}.page")


@pytest.fixture
def tenant_id() -> str:
    return new_id("ten")


@pytest.fixture
async def rows(kit: StateKit, tenant_id: str) -> list[Document]:
    """A list with a burst, a gap of months, several of one moment, and one of this second."""
    now = datetime.now(UTC).replace(microsecond=0)
    moments = [
        (30, now - timedelta(days=200), timedelta(milliseconds=1)),
        (10, now - timedelta(days=90), timedelta(0)),
        (20, now - timedelta(days=3), timedelta(hours=3)),
        (1, now, timedelta(0)),
    ]
    rows = [
        row
        for count, start, step in moments
        for row in made(count, start=start, step=step, tenant_id=tenant_id)
    ]
    random.shuffle(rows)
    await kit.mongo.collection(LIST).insert_many(rows)
    return rows


@pytest.mark.parametrize(
    "feed",
    [
        [],
        [0],
        [to_milliseconds(datetime.now(UTC) + timedelta(days=1))] * KEPT,
        [to_milliseconds(datetime.now(UTC) - timedelta(days=90))],
        [to_milliseconds(datetime.now(UTC) - timedelta(days=4000))] * KEPT,
    ],
    ids=["unknown", "all is known", "too new", "short", "too old"],
)
async def test_all_pages_together_are_the_list_whatever_its_feed_says(
    kit: StateKit, tenant_id: str, rows: list[Document], feed: list[int]
) -> None:
    if feed:
        await kit.redis.client.rpush(keys.feed(LIST, tenant_id), *feed)
    assert await walk(kit, {"tenant_id": tenant_id}) == in_order(rows)


async def test_a_narrowed_list_is_whole_too(kit: StateKit, tenant_id: str, rows: list[Document]) -> None:
    for row in rows:
        await kit.newest_first.grew(LIST, row)
    closed = [row for row in rows if row["status"] == "closed"]
    mine = [row for row in rows if row["user_id"] == "usr_1"]
    assert await walk(kit, {"tenant_id": tenant_id, "status": "closed"}) == in_order(closed)
    assert await walk(kit, {"tenant_id": tenant_id}, also={"status": "closed"}) == in_order(closed)
    assert await walk(kit, {"tenant_id": tenant_id, "user_id": "usr_1"}) == in_order(mine)
    assert await walk(kit, {"tenant_id": tenant_id, "user_id": "usr_9"}) == []


async def test_a_list_that_was_read_is_read_at_once_the_next_time_also_as_it_grows(
    kit: StateKit, tenant_id: str, rows: list[Document]
) -> None:
    owned = {"tenant_id": tenant_id}
    await kit.newest_first.page(LIST, owned, before=None, limit=LIMIT)
    grown = made(
        LIMIT + 1,
        start=datetime.now(UTC).replace(microsecond=0),
        step=timedelta(seconds=1),
        tenant_id=tenant_id,
    )
    for row in grown:
        await kit.mongo.collection(LIST).insert_one(row)
        await kit.newest_first.grew(LIST, row)
        before = reads(kit)
        rows.append(row)
        page = await kit.newest_first.page(LIST, owned, before=None, limit=LIMIT)
        assert [row["_id"] for row in page] == in_order(rows)[:LIMIT]
        assert reads(kit) == before + 1


async def test_a_list_with_less_than_a_page_is_read_at_once_the_next_time(
    kit: StateKit, tenant_id: str
) -> None:
    owned = {"tenant_id": tenant_id}
    assert await kit.newest_first.page(LIST, owned, before=None, limit=LIMIT) == []
    before = reads(kit)
    assert await kit.newest_first.page(LIST, owned, before=None, limit=LIMIT) == []
    assert reads(kit) == before + 1


async def test_a_feed_keeps_so_many_dates_and_ends_by_itself(kit: StateKit, tenant_id: str) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for row in made(KEPT + 5, start=start, step=timedelta(seconds=1), tenant_id=tenant_id):
        await kit.newest_first.grew(LIST, row)
    feed = keys.feed(LIST, tenant_id)
    assert await kit.redis.client.llen(feed) == KEPT
    assert await kit.redis.client.lindex(feed, -1) == str(to_milliseconds(start) + 5000).encode()
    assert 0 < await kit.redis.client.pttl(feed) <= keys.FEED_TTL_MS


async def test_a_window_deep_down_is_read_without_what_is_newer_or_older(
    kit: StateKit, tenant_id: str
) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    rows = made(200, start=start, step=timedelta(minutes=1), tenant_id=tenant_id)
    await kit.mongo.collection(LIST).insert_many(rows)
    since, after = rows[90]["created_at"], (rows[99]["created_at"], rows[99]["_id"])
    wanted = {"tenant_id": tenant_id, **between(since, after)}
    explained = await kit.mongo.database.command({"explain": {"find": LIST, "filter": wanted}})
    assert explained["executionStats"]["nReturned"] == 10
    assert explained["executionStats"]["totalDocsExamined"] == 10
