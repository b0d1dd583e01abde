"""Files: kept with the transaction that wants them, or gone; never held whole; nobody else's."""

import asyncio
import hashlib
import random
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import gridfs
import pymongo
import pytest

from app.core.errors import NotFoundError
from app.core.settings import Settings
from app.state import files
from app.state.files import CHUNK_BYTES, CHUNKS, FILES, ArrivingFile, CrowdedUploadsError, FileExpiredError
from app.state.kit import StateKit

CONTENT = random.Random(5).randbytes(3 * CHUNK_BYTES + 17)  # noqa: S311  # content, not a secret
PDF = "application/pdf"


async def send(file: ArrivingFile, content: bytes = CONTENT, *, piece_bytes: int = 60_000) -> None:
    for start in range(0, len(content), piece_bytes):
        await file.write(content[start : start + piece_bytes])
    await file.finish()


async def keep(kit: StateKit, file: ArrivingFile) -> files.StoredFile:
    return await kit.transactions.run(file.keep)


async def counts(kit: StateKit) -> tuple[int, int]:
    """Return how many records and how many chunks there are."""
    collections = (kit.mongo.collection(name) for name in (FILES, CHUNKS))
    return tuple([await rows.count_documents({}) for rows in collections])  # type: ignore[return-value]


def later(kit: StateKit, monkeypatch: pytest.MonkeyPatch, by: timedelta) -> None:
    at = kit.clock.now() + by
    monkeypatch.setattr(kit.clock, "now", lambda: at)


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, len(CONTENT)])
async def test_what_was_written_is_read(kit: StateKit, size: int) -> None:
    async with kit.files.arriving(tenant_id="ten_a", media_type=PDF) as file:
        await send(file, CONTENT[:size])
        made = await keep(kit, file)
    assert made.sha256 == hashlib.sha256(CONTENT[:size]).hexdigest()
    found = await kit.files.get("ten_a", made.id)
    assert found == made
    assert b"".join([chunk async for chunk in kit.files.read(found)]) == CONTENT[:size]


async def test_drivers_read_it_as_gridfs(kit: StateKit, settings: Settings) -> None:
    async with kit.files.arriving(tenant_id="ten_a", media_type=PDF) as file:
        await send(file)
        made = await keep(kit, file)

    def by_the_driver() -> bytes:
        uri = settings.mongodb_uri.get_secret_value()
        with pymongo.MongoClient[dict[str, Any]](uri) as client:
            return (
                gridfs.GridFSBucket(client.get_default_database(), "uploads")
                .open_download_stream(made.id)
                .read()
            )

    assert await asyncio.to_thread(by_the_driver) == CONTENT


async def test_a_file_of_another_tenant_and_one_on_its_way_do_not_exist(kit: StateKit) -> None:
    async with kit.files.arriving(tenant_id="ten_a", media_type=PDF) as file:
        await send(file)
        with pytest.raises(NotFoundError):
            await kit.files.get("ten_a", file.id)
        await keep(kit, file)
    with pytest.raises(NotFoundError):
        await kit.files.get("ten_b", file.id)


async def test_what_no_transaction_kept_leaves_nothing(
    kit: StateKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    class ChangedItsMindError(Exception):
        pass

    async def keep_and_refuse(session: Any) -> None:
        await file.keep(session)
        raise ChangedItsMindError

    async def lose_the_client() -> None:
        async with kit.files.arriving(tenant_id="ten_a", media_type=PDF) as lost:
            await lost.write(CONTENT)
            raise ConnectionError

    async with kit.files.arriving(tenant_id="ten_a", media_type=PDF) as file:
        await send(file)
        with pytest.raises(ChangedItsMindError):
            await kit.transactions.run(keep_and_refuse)
    with pytest.raises(ConnectionError):
        await lose_the_client()
    assert await counts(kit) == (2, 0)
    later(kit, monkeypatch, timedelta(hours=2))
    assert await kit.files.tidy() == 2
    assert await counts(kit) == (0, 0)


async def test_what_a_dead_process_left_is_tidied_up_and_can_not_be_kept_any_more(
    kit: StateKit, other_kit: StateKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process is only frozen: it wakes after it was taken for dead, and writes on."""
    await (kept := ArrivingFile(kit.mongo, kit.clock, tenant_id="ten_a", media_type=PDF)).announce()
    await send(kept)
    await keep(kit, kept)
    await (left := ArrivingFile(kit.mongo, kit.clock, tenant_id="ten_a", media_type=PDF)).announce()
    await left.write(CONTENT)
    assert await other_kit.files.tidy() == 0, "it is still on its way"
    later(other_kit, monkeypatch, timedelta(minutes=11))
    assert await other_kit.files.tidy() == 1
    assert await other_kit.mongo.collection(CHUNKS).count_documents({"files_id": left.id}) == 0
    await left.finish()
    with pytest.raises(FileExpiredError):
        await keep(kit, left)
    assert await other_kit.mongo.collection(CHUNKS).count_documents({"files_id": left.id}) == 1
    later(other_kit, monkeypatch, timedelta(hours=2))
    assert await other_kit.files.tidy() == 1
    assert await counts(other_kit) == (1, 4)


async def test_so_many_files_arrive_at_once_and_no_more(
    kit: StateKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "WAIT_S", 0.05)
    let_go = asyncio.Event()

    @asynccontextmanager
    async def place() -> Any:
        async with kit.files.arriving(tenant_id="ten_a", media_type=PDF):
            yield

    async def hold() -> None:
        async with place():
            await let_go.wait()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(files.AT_ONCE):
            tasks.create_task(hold())
        async with asyncio.timeout(10):
            while (await counts(kit))[0] < files.AT_ONCE:  # noqa: ASYNC110  # a store
                await asyncio.sleep(0.01)
        with pytest.raises(CrowdedUploadsError):
            async with place():
                pass
        let_go.set()
    async with place():
        pass
