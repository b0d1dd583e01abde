"""A running cluster as a test sees it: doors to Nginx and to each replica, people with accounts, and the
hand on the plug of every process.
"""

import asyncio
import contextlib
import itertools
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import pymongo
import redis

from tests.cluster.harness import Cluster
from tests.cluster.wire import Broken, Door, Reply

API = "/api/v1"
PASSWORD = "a-long-enough-passphrase"
WHOLE_TIMEOUT_S = 60.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with an account who is logged in."""

    email: str
    id: str
    tenant_id: str
    role: str
    token: str
    refresh_token: str

    @classmethod
    def from_login(cls, answer: dict[str, Any]) -> "Person":
        """Read the answer of login, registration or refresh."""
        user = answer["user"]
        return cls(
            user["email"],
            user["id"],
            user["tenant_id"],
            user["role"],
            answer["access_token"],
            answer["refresh_token"],
        )


def fresh_email() -> str:
    """Return an address nobody has registered yet."""
    return f"{secrets.token_hex(8)}@cargoflow.example"


class World:
    """See the module. One a cluster; each test begins when everything is `whole`."""

    def __init__(self, cluster: Cluster) -> None:
        """`cluster` is up."""
        self.cluster = cluster
        self.nginx = Door(cluster.url)
        self.replicas: dict[str, Door] = {}

    # -- processes ----------------------------------------------------------------------------------------

    async def status(self) -> dict[str, Any]:
        """Return what `./cargoflow status --json` says."""
        answer: dict[str, Any] = await asyncio.to_thread(self.cluster.status)
        return answer

    async def pid(self, name: str) -> int:
        """Return the pid of `mongo`, `redis` or a replica. Fails while it has none."""
        status = await self.status()
        for row in status["replicas"]:
            if row["name"] == name:
                return int(row["pid"])
        return int(status["stores"][name]["pid"])

    async def send(self, name: str, number: signal.Signals) -> int:
        """Send a signal to that process and return its pid."""
        pid = await self.pid(name)
        send_signal(pid, number)
        return pid

    async def kill_replica(self, name: str) -> None:
        """Kill it (SIGKILL); return when nobody answers at its address any more."""
        await self.send(name, signal.SIGKILL)
        await self.is_gone(name)

    async def is_gone(self, name: str) -> None:
        """Return when nobody answers at a killed replica's address; the supervisor pauses before the next."""

        async def silent() -> bool:
            return await readiness(self.replicas[name]) is None

        await until(silent, poll_s=0.01)

    async def is_back(self, name: str, *, instead_of: int | None = None) -> None:
        """Return when a killed replica is ready again; `instead_of`: its pid, where it may be by now."""

        async def ready() -> bool:
            if await readiness(self.replicas[name]) != (200, "pass"):
                return False
            return instead_of is None or await self.pid(name) != instead_of

        await until(ready, timeout_s=WHOLE_TIMEOUT_S)

    @contextlib.asynccontextmanager
    async def frozen(self, name: str) -> AsyncIterator[None]:
        """Keep that process stopped (SIGSTOP) inside the block."""
        pid = await self.send(name, signal.SIGSTOP)
        try:
            yield
        finally:
            send_signal(pid, signal.SIGCONT)

    async def whole(self, replicas: int = 3) -> None:
        """Return once that many replicas, and Nginx, say that everything is well."""
        if len(self.replicas) == replicas and await everyone_ready(self):
            return

        async def well() -> bool:
            status = await self.status()
            urls = {row["name"]: row["url"] for row in status["replicas"]}
            if len(urls) != replicas or not all(row["pid"] for row in status["replicas"]):
                return False
            if urls != {name: door.url for name, door in self.replicas.items()}:
                await in_parallel((door.close() for door in self.replicas.values()), at_once=1)
                self.replicas = {name: Door(url) for name, url in urls.items()}
            return await everyone_ready(self)

        await until(well, timeout_s=WHOLE_TIMEOUT_S)

    async def close(self) -> None:
        """Close every connection."""
        for door in self.places:
            await door.close()

    @property
    def places(self) -> list[Door]:
        """Everywhere a request can be sent: Nginx, and each replica straight."""
        return [self.nginx, *self.replicas.values()]

    @property
    def doors(self) -> list[Door]:
        """The replicas, straight."""
        return list(self.replicas.values())

    def anywhere(self) -> Door:
        """Return one of the places, by chance."""
        return secrets.choice(self.places)

    def two_places(self) -> tuple[Door, Door]:
        """Return two different places, by chance."""
        first = self.anywhere()
        return first, secrets.choice([door for door in self.places if door is not first])

    # -- stores -------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def mongo(self) -> AsyncIterator[Any]:
        """Open the database itself, past every replica; calls on it block, so use few."""
        uri = (await self.status())["stores"]["mongo"]["uri"]
        with pymongo.MongoClient(uri, tz_aware=True, serverSelectionTimeoutMS=20_000) as client:
            yield client.get_default_database("cargoflow")

    @contextlib.asynccontextmanager
    async def redis(self) -> AsyncIterator[redis.Redis]:
        """Open Redis itself; calls on it block, so use few."""
        url = (await self.status())["stores"]["redis"]["url"]
        with redis.Redis.from_url(url, socket_timeout=10) as client:
            yield client

    # -- people and sessions ------------------------------------------------------------------------------

    async def register(self, count: int = 1) -> list[Person]:
        """Return that many fresh people, each the admin of a company of their own."""

        async def one() -> Person:
            body = {"email": fresh_email(), "password": PASSWORD, "name": "Ada", "company": "Acceptance"}
            return Person.from_login(
                expect(201, await self.nginx.ask("POST", f"{API}/auth/register", body=body))
            )

        return await in_parallel((one() for _ in range(count)), at_once=4)

    async def person(self) -> Person:
        """Return one fresh person."""
        return (await self.register())[0]

    async def persist(self, method: str, path: str, *, first: Door | None = None, **details: Any) -> Reply:
        """Ask one place after another until one gives a whole answer that is not an outage.

        For requests whose repetition is harmless, while replicas are being killed: an answer that never
        came says nothing about the effect, so the test asks again elsewhere, as a careful client would.
        """
        start = self.places.index(first or self.anywhere())
        places = itertools.cycle([*self.places[start:], *self.places[:start]])
        async with asyncio.timeout(WHOLE_TIMEOUT_S):
            for place in places:
                with contextlib.suppress(Broken):
                    reply = await place.ask(method, path, **details)
                    if reply.status not in {502, 503, 504}:
                        return reply
                await asyncio.sleep(0.05)
        raise AssertionError("unreachable")


def send_signal(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def expect(status: int, reply: Reply) -> Any:
    """Return the parsed body (None without one) of an answer that must have this status."""
    assert reply.status == status, str(reply)
    return reply.json() if reply.body else None


async def readiness(door: Door) -> tuple[int, str] | None:
    """Return the status code and the status of /ready, or nothing if there is no answer."""
    try:
        reply = await door.ask("GET", "/ready", timeout_s=10)
        return reply.status, reply.json().get("status", "")
    except (Broken, ValueError):
        return None


async def everyone_ready(world: World) -> bool:
    """Say whether every replica and Nginx find nothing wrong."""
    return all([await readiness(door) == (200, "pass") for door in world.places])


async def until(
    condition: Callable[[], Awaitable[bool]], *, timeout_s: float = 30.0, poll_s: float = 0.1
) -> float:
    """Return, in seconds, how long it took `condition` to become true; fails the test if it does not."""
    began_s = time.monotonic()
    async with asyncio.timeout(timeout_s):
        while not await condition():  # noqa: ASYNC110  # what is waited for lives in other processes
            await asyncio.sleep(poll_s)
    return time.monotonic() - began_s


async def in_parallel(work: Iterable[Coroutine[Any, Any, T]], *, at_once: int) -> list[T]:
    """Run all of it, that many at a time, and return the results in order. The first failure ends all."""
    gate = asyncio.Semaphore(at_once)

    async def one(coroutine: Coroutine[Any, Any, T]) -> T:
        async with gate:
            return await coroutine

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(coroutine)) for coroutine in work]
    return [task.result() for task in tasks]


async def login(world: World, email: str, password: str = PASSWORD) -> Person:
    """Log somebody in."""
    body = {"email": email, "password": password}
    door = world.anywhere()
    return Person.from_login(expect(200, await door.ask("POST", f"{API}/auth/login", body=body)))


async def employ(world: World, admin: Person, role: str) -> Person:
    """Make a colleague of an admin's, and log them in."""
    body = {"email": fresh_email(), "name": "Grace", "role": role, "password": PASSWORD}
    expect(201, await world.anywhere().ask("POST", f"{API}/users", token=admin.token, body=body))
    return await login(world, body["email"])
