"""Documents through several replicas and real workers, some of which die, and files that mean harm."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.core.settings import Settings
from app.features.credit.service import SCORE
from app.features.scans.store import READ
from app.state.files import ARRIVES_WITHIN, CHUNKS
from app.state.kit import StateKit
from tests.engines import Replica, as_environment
from tests.features.scans import samples
from tests.features.scans.conftest import APPLICATION
from tests.features.scans.uploads import stored
from tests.state.people import Person, log_in, new_account, new_person

AT_ONCE = 20
APPLICATIONS = 20


@pytest.fixture
async def me(kit: StateKit) -> Person:
    return await new_person(kit, role="shipper")


@asynccontextmanager
async def through(url: str, person: Person) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=f"{url}/api/v1", headers=person.headers, timeout=60, limits=httpx.Limits(max_connections=50)
    ) as client:
        yield client


@asynccontextmanager
async def worker(settings: Settings, name: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `python -m app.worker` until the block ends."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app.worker"),
        stdin=asyncio.subprocess.DEVNULL,
        env={**os.environ, **as_environment(settings), "REPLICA_NAME": name},
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def until(condition: Callable[[], Awaitable[bool]], *, timeout_s: float = 90) -> None:
    async with asyncio.timeout(timeout_s):
        while not await condition():  # noqa: ASYNC110  # other processes
            await asyncio.sleep(0.05)


async def apply(client: httpx.AsyncClient) -> str:
    made = await client.post("/applications", json=APPLICATION)
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


@pytest.mark.replicas(3)
async def test_the_same_file_many_times_at_once_through_three_replicas_is_one_document(
    kit: StateKit, replicas: list[str], me: Person
) -> None:
    content = samples.photographed()
    async with (
        through(replicas[0], me) as first,
        through(replicas[1], me) as second,
        through(replicas[2], me) as third,
    ):
        path = f"/applications/{await apply(first)}/documents"
        clients = [first, second, third]
        answers = await asyncio.gather(
            *(
                clients[number % 3].post(
                    path, files={"file": ("a.jpg", content)}, headers={"Idempotency-Key": f"k-{number % 5}"}
                )
                for number in range(AT_ONCE)
            )
        )
        assert {answer.status_code for answer in answers} == {202}, [answer.text for answer in answers]
        assert len({answer.content for answer in answers}) == 1
        assert await kit.mongo.collection("jobs").count_documents({"type": READ}) == 1
        assert await stored(kit) == (1, 1, 1)
        stranger = await log_in(kit, await new_account(kit, role="admin"))
        document = f"{path}/{answers[0].json()['document_id']}"
        theirs = [await client.get(document, headers=stranger.headers) for client in clients]
        nobodys = await first.get(f"{path}/doc_4TFxkQm7JYpZr2sVnW8aBc", headers=stranger.headers)
        assert {answer.status_code for answer in theirs} == {404}
        assert len({_bare(answer) for answer in (*theirs, nobodys)}) == 1


def _bare(answer: httpx.Response) -> str:
    return str({**answer.json(), "request_id": ""})


async def half_an_upload(url: str, person: Person, path: str) -> asyncio.StreamWriter:
    """Send a half of a file to a replica, and wait for the other half to be asked for."""
    host, port = url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = (
        f"POST /api/v1{path} HTTP/1.1\r\nHost: {host}:{port}\r\n"
        f"Authorization: {person.headers['Authorization']}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 2000000\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n%PDF-1.7\n'
    )
    writer.write(head.encode() + bytes(1_000_000))
    await writer.drain()
    return writer


async def test_an_upload_cut_off_by_its_client_or_by_a_kill_leaves_nothing_lasting(
    kit: StateKit, replica_processes: list[Replica], me: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying, living = replica_processes

    async def chunks() -> int:
        return int(await kit.mongo.collection(CHUNKS).count_documents({}))

    async def are_there() -> bool:
        return await chunks() >= 3

    async def are_gone() -> bool:
        return await chunks() == 0

    async with through(living.url, me) as client:
        path = f"/applications/{await apply(client)}/documents"
        leaver = await half_an_upload(living.url, me, path)
        await until(are_there)
        leaver.close()
        await until(are_gone)
        cut_off = await half_an_upload(dying.url, me, path)
        await until(are_there)
        dying.kill()
        cut_off.close()
        assert (await client.get(path)).json()["items"] == []
        assert (await client.post(path, files={"file": ("a", samples.born_digital())})).status_code == 202
    assert (await stored(kit))[:2] == (1, 1)
    at = kit.clock.now() + ARRIVES_WITHIN + timedelta(seconds=1)
    monkeypatch.setattr(kit.clock, "now", lambda: at)
    await kit.files.tidy()
    assert await stored(kit) == (1, 1, 1)


def readers_of(pid: int) -> list[int]:
    """Return the processes that a worker reads documents in, once they are tied to it."""
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    with suppress(OSError):
        return [
            each for each in children if Path(f"/proc/{each}/oom_score_adj").read_text().strip() == "1000"
        ]
    return []


def runs(pid: int) -> bool:
    with suppress(OSError):
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    return False


async def test_a_worker_killed_while_it_reads_takes_its_reader_along_and_the_document_is_read_once(
    kit: StateKit, settings: Settings, replicas: list[str], me: Person
) -> None:
    async with through(replicas[0], me) as client:
        path = f"/applications/{await apply(client)}/documents"
        made = (await client.post(path, files={"file": ("a", samples.photographed())})).json()
        async with worker(settings, "worker-1") as process:
            found: list[int] = []

            async def reads() -> bool:
                found[:] = readers_of(process.pid)
                for child in found:
                    os.kill(child, signal.SIGSTOP)  # it does not get away meanwhile
                return bool(found)

            await until(reads)
            process.kill()
            await process.wait()

        async def reader_is_gone() -> bool:
            return not runs(found[0])

        await until(reader_is_gone, timeout_s=10)
        assert (await client.get(f"{path}/{made['document_id']}")).json()["state"] == "reading"
        over = {"$set": {"lease_expires_at": kit.clock.now()}}  # in fifteen seconds it would be by itself
        await kit.mongo.collection("jobs").update_one({"_id": made["job_id"]}, over)
        async with worker(settings, "worker-2"):

            async def is_read() -> bool:
                return bool((await client.get(f"{path}/{made['document_id']}")).json()["state"] == "read")

            await until(is_read)
        job = await kit.jobs.get(me.account.tenant_id, made["job_id"])
        assert (job.state, job.crashes, job.attempts) == ("completed", 1, 0)
        assert await kit.mongo.collection("jobs").count_documents({"type": SCORE}) == 2


async def test_files_that_mean_harm_are_answered_and_disturb_no_other_job(
    kit: StateKit, settings: Settings, replicas: list[str], me: Person
) -> None:
    harm = {
        "too_many_pixels": samples.png_bomb(),
        "too_many_pages": samples.pdf([""] * 1000),
        "encrypted": samples.encrypted_pdf(),
        "damaged": b"%PDF-1.7\n" + os.urandom(50_000),
    }
    hungry = samples.pdf_with_a_picture_of(10_000)
    async with through(replicas[0], me) as client, worker(settings, "worker-1") as process:
        path = f"/applications/{await apply(client)}/documents"
        for content in (hungry, *harm.values(), samples.photographed()):
            assert (await client.post(path, files={"file": ("a", content)})).status_code == 202
        others = await asyncio.gather(*(apply(client) for _ in range(APPLICATIONS)))

        async def are_scored() -> bool:
            found = {"_id": {"$in": others}}
            return bool(await kit.mongo.collection("scores").count_documents(found) == len(others))

        await until(are_scored)

        async def are_over() -> bool:
            listed = (await client.get(path)).json()["items"]
            return all(row["state"] in {"read", "failed"} for row in listed)

        await until(are_over)
        assert process.returncode is None
        listed: list[dict[str, Any]] = (await client.get(path)).json()["items"]
        assert [row["error"]["code"] for row in listed[1:-1]] == list(harm)
        assert listed[-1]["state"] == "read"
        assert {row["name"] for row in listed[-1]["fields"]} == {
            "company",
            "registration_number",
            "revenue",
            "date",
        }
        dead = await kit.mongo.collection("jobs").count_documents({"state": {"$in": ["failed", "dead"]}})
        assert dead == 0
