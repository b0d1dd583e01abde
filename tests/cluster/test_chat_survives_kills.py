"""Answers outlive the replicas that write them: every word once and in order, and stored as it was shown.

The model is a slow one that counts aloud. Its client is a careful one: it repeats its question under the
same key until it is told the run, and goes on with Last-Event-ID through Nginx whenever its stream breaks.
"""

import asyncio
import itertools
import random
import secrets
import signal
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests import model_server as models
from tests.cluster import harness
from tests.cluster.counts import full, show
from tests.cluster.harness import Cluster
from tests.cluster.limits import GENEROUS
from tests.cluster.world import API, Person, World, expect, in_parallel, send_signal, until
from tests.features.chat.sse import ServerEvent, event_of, text_of
from tests.model_server import ModelServer

KILLS = full(100, 10)
EARLY_KILL_S = 0.08
"""Within it a replica has questions in its hands that it has not named the runs of."""
UNANSWERED = frozenset((409, 502, 503, 504))
"""What a careful client asks again after."""
FREEZES = full(10, 2)
CONVERSATIONS, TURNS = full(50, 5), full(20, 6)
WORDS = 40
PAUSE_S = 0.05
AT_ONCE = 9
READ_TIMEOUT_S = 4.0
"""A client's patience with a stream that says nothing: a frozen replica's never would again."""
WHOLE = "".join(models.word(number) for number in range(1, WORDS + 1))


@pytest.fixture(scope="module")
async def model() -> AsyncIterator[ModelServer]:
    async with models.model_server() as server:
        server.titles = models.counting(3)  # a worker that waits for a slow answer takes long to drain
        yield server


@pytest.fixture(scope="module")
async def chat_world(model: ModelServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    env = {
        **GENEROUS,
        "LIMIT_CHAT": "1000000/minute",
        "CHAT_BASE_URL": model.url,
        "CHAT_MODEL": "stub",
        "EDGE_LIMITS": "off",
    }
    async with Cluster(tmp_path_factory.mktemp("chat") / "data", replicas=3, env=env) as cluster:
        world = World(cluster)
        yield world
        await world.close()


@pytest.fixture
async def world(chat_world: World) -> World:
    await chat_world.whole()
    return chat_world


class Reader:
    """One client with one answer: what it received, and from which replicas."""

    def __init__(self, world: World, person: Person) -> None:
        self.events: list[ServerEvent] = []
        self.replicas: list[str] = []
        self.question = self.run_id = self.session_id = ""
        self.times_asked = 0
        self.is_replay = False
        """Whether the run it was told of is one that an earlier copy of its question had started."""
        headers = {"Authorization": f"Bearer {person.token}"}
        timeout = httpx.Timeout(10, read=READ_TIMEOUT_S)
        self._http = httpx.AsyncClient(base_url=world.cluster.url, headers=headers, timeout=timeout)
        self._started = asyncio.Event()

    async def ask(self, message: str, session_id: str | None = None) -> None:
        """Ask, and follow the answer to its end, whatever breaks."""
        self.question = message
        body = {"message": message, "session_id": session_id}
        key = {"Idempotency-Key": secrets.token_hex()}
        async with self._http:
            async with asyncio.timeout(60) as patience:
                while not self.run_id:
                    self.times_asked += 1
                    asking = self._http.stream("POST", f"{API}/chat/stream", json=body, headers=key)
                    await self._follow(asking, patience)
                    await asyncio.sleep(0.05)
            async with asyncio.timeout(60):
                while not self.is_over:
                    last = next((event.id for event in reversed(self.events) if event.id), "")
                    path = f"{API}/chat/runs/{self.run_id}/stream"
                    await self._follow(self._http.stream("GET", path, headers={"Last-Event-ID": last}))
                    await asyncio.sleep(0.05)

    async def _follow(self, request: Any, patience: asyncio.Timeout | None = None) -> None:
        try:
            async with request as response:
                if response.status_code != 200:
                    assert response.status_code in UNANSWERED, response.status_code
                    return
                if patience is not None:
                    patience.reschedule(None)  # it is being answered
                    self.is_replay = "idempotent-replayed" in response.headers
                self.run_id = response.headers["x-run-id"]
                self.session_id = response.headers["x-session-id"]
                self.replicas.append(response.headers["x-replica"])
                block: list[str] = []
                async for line in response.aiter_lines():
                    if line:
                        block.append(line)
                        continue
                    event = event_of("\n".join(block))
                    block.clear()
                    if event is not None:
                        self.events.append(event)
                        self._started.set()
        except httpx.TransportError:
            return

    @property
    def is_over(self) -> bool:
        return bool(self.events) and self.events[-1].type in {"done", "error"}

    async def has_begun(self) -> str:
        """Return the replica that writes, once there is a word."""
        await self._started.wait()
        return self.replicas[0]


async def assert_whole(world: World, person: Person, reader: Reader) -> None:
    deltas = [event for event in reader.events if event.type == "delta"]
    assert {event.type for event in reader.events} <= {"delta", "done", "moved"}, reader.events
    assert text_of(deltas) == WHOLE
    done = reader.events[-1]
    assert (done.type, done.data["text"]) == ("done", WHOLE)
    path = f"{API}/chat/history/{reader.session_id}"
    pages = [expect(200, await door.ask("GET", path, token=person.token)) for door in world.doors]
    assert all(page == pages[0] for page in pages)
    question, stored = pages[0]["items"]
    assert (question["role"], question["content"]) == ("user", reader.question)
    assert (stored["role"], stored["id"], stored["content"]) == ("assistant", done.data["message_id"], WHOLE)


async def conversations_of(world: World, person: Person) -> int:
    async with world.mongo() as database:
        return int(database["conversations"].count_documents({"user_id": person.id}))


@pytest.mark.timeout(2400)
async def test_a_killed_replica_s_answer_is_finished_by_another_every_word_once_and_in_order(
    world: World, model: ModelServer
) -> None:
    person = await world.person()
    cut = asked_again = replayed = 0
    for kill in range(KILLS):
        model.script = models.counting(WORDS, pause_s=PAUSE_S, starts_over=kill % 2 == 1)
        pids = {row["name"]: row["pid"] for row in (await world.status())["replicas"]}
        readers = [Reader(world, person) for _ in range(AT_ONCE)]
        async with asyncio.TaskGroup() as tasks:
            for number, reader in enumerate(readers):
                tasks.create_task(reader.ask(f"count, {number}"))
            if kill % 4 < 2:
                victim = await readers[0].has_begun()
                await asyncio.sleep(random.uniform(0, WORDS * PAUSE_S * 0.8))  # noqa: S311  # any moment
            else:
                victim = random.choice(list(pids))  # noqa: S311  # any replica
                await asyncio.sleep(random.uniform(0, EARLY_KILL_S))  # noqa: S311  # while it is asked
            send_signal(pids[victim], signal.SIGKILL)
        await world.is_back(victim)
        for reader in readers:
            await assert_whole(world, person, reader)
        cut += sum(len(reader.replicas) > 1 for reader in readers)
        asked_again += sum(reader.times_asked > 1 for reader in readers)
        replayed += sum(reader.is_replay for reader in readers)
    asked = KILLS * AT_ONCE
    assert await conversations_of(world, person) == asked, "a question was kept twice, or is missing"
    assert cut >= KILLS, "too few answers were cut off for this to prove anything"
    show(
        f"{KILLS} kills cut off {cut} of {asked} answers; {asked_again} questions were asked again by their "
        f"clients, {replayed} times a question was found kept"
    )


@pytest.mark.timeout(600)
async def test_a_frozen_replica_s_answer_is_finished_by_another_and_it_adds_nothing_when_it_wakes(
    world: World, model: ModelServer
) -> None:
    person = await world.person()
    model.script = models.counting(WORDS, pause_s=PAUSE_S)
    for number in range(FREEZES):
        reader = Reader(world, person)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(reader.ask(f"count, {number}"))
            owner = await reader.has_begun()
            pid = await world.pid(owner)
            send_signal(pid, signal.SIGSTOP)
            try:
                await harness.until(lambda reader=reader: reader.is_over)
            finally:
                send_signal(pid, signal.SIGCONT)
        await world.is_back(owner)
        await world.whole()
        await assert_whole(world, person, reader)


@pytest.mark.timeout(600)
async def test_a_rolling_restart_moves_readers_and_runs_and_loses_no_word(
    world: World, model: ModelServer
) -> None:
    person = await world.person()
    model.script = models.counting(WORDS, pause_s=0.25)
    readers = [Reader(world, person) for _ in range(3)]
    async with asyncio.TaskGroup() as tasks:
        for number, reader in enumerate(readers):
            tasks.create_task(reader.ask(f"count, {number}"))
        for reader in readers:
            await reader.has_begun()
        await asyncio.to_thread(world.cluster.cli, "restart")
    await world.whole()
    for reader in readers:
        await assert_whole(world, person, reader)
    moved = sum(event.type == "moved" for reader in readers for event in reader.events)
    show(f"{moved} readers were told to move")


@pytest.mark.timeout(600)
async def test_stop_stops_from_any_replica_and_keeps_what_was_shown(world: World, model: ModelServer) -> None:
    person = await world.person()
    model.script = models.counting(10_000, pause_s=0.02)
    for door in world.doors:
        reader = Reader(world, person)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(reader.ask("count"))
            await reader.has_begun()
            stopped = expect(
                200, await door.ask("POST", f"{API}/chat/runs/{reader.run_id}/stop", token=person.token)
            )
        assert stopped["state"] == "stopped"
        assert stopped["text"].startswith(models.word(1))
        assert (reader.events[-1].type, reader.events[-1].data["text"]) == ("done", stopped["text"])
        assert text_of(reader.events[:-1]) == stopped["text"]
        page = expect(
            200,
            await world.nginx.ask("GET", f"{API}/chat/history/{reader.session_id}", token=person.token),
        )
        assert page["items"][-1]["content"] == stopped["text"]
        asked = len(model.requests)

        async def answered(session_id: str = reader.session_id) -> bool:
            body = {"message": "short", "session_id": session_id}
            model.script = models.counting(2)
            reply = await world.nginx.ask("POST", f"{API}/chat", token=person.token, body=body)
            return reply.status == 200

        await until(answered)
        assert len(model.requests) > asked
        model.script = models.counting(10_000, pause_s=0.02)


@pytest.mark.timeout(900)
async def test_shuffled_turns_through_all_replicas_are_each_there_once_and_everywhere_in_the_same_order(
    world: World, model: ModelServer
) -> None:
    model.script = models.echoing()
    people = await world.register(3)
    refused = itertools.count()

    async def converse(number: int) -> tuple[Person, str]:
        person, session_id = people[number % len(people)], None
        for turn in range(TURNS):
            body = {"message": f"question {turn}", "session_id": session_id}
            while True:
                reply = await random.choice(world.places).ask(  # noqa: S311  # any replica
                    "POST", f"{API}/chat", token=person.token, body=body
                )
                if reply.status != 409:
                    break
                next(refused)
                await asyncio.sleep(0.05)
            assert expect(200, reply)["reply"] == f"you said: question {turn}"
            session_id = expect(200, reply)["session_id"]
        assert session_id is not None
        return person, session_id

    conversations = await in_parallel((converse(n) for n in range(CONVERSATIONS)), at_once=10)
    expected = [
        (role, text)
        for turn in range(TURNS)
        for role, text in (("user", f"question {turn}"), ("assistant", f"you said: question {turn}"))
    ]
    for person, session_id in conversations:
        for door in world.places:
            path = f"{API}/chat/history/{session_id}?limit=100"
            items = expect(200, await door.ask("GET", path, token=person.token))["items"]
            assert [(item["role"], item["content"]) for item in items] == expected
    show(f"{CONVERSATIONS} conversations of {TURNS} turns, {next(refused)} refused and asked again")
