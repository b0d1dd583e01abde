"""What is measured: a cluster of the benchmark's own, started as by `./cargoflow up`, and floors beside it.

Everything listens on loopback and is a child of this process, so it ends with it however it ends (Linux).
Limits are raised until none bites; stores that the environment names are left alone.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import psutil

from app.cluster import nginx
from app.cluster.application import PROXY_SOURCE
from app.cluster.child import Child, Program
from app.cluster.cluster import Cluster
from app.cluster.engines import engine_environment
from app.cluster.events import Announcer
from app.cluster.failures import StartFailedError
from app.cluster.journal import Journal
from app.cluster.layout import REPOSITORY, Layout
from app.cluster.plan import Plan
from app.cluster.ports import LOOPBACK, Ports
from app.cluster.probes import http_ready
from app.cluster.processes import Process, Recipe, Surroundings
from app.core.clock import Clock
from app.core.ids import new_id
from app.core.settings import Settings
from app.state.kit import StateKit, open_kit
from app.state.logins import Device
from app.state.session_documents import Owner
from bench.scenario import Load, Scenario, User, World

_UNLIMITED = "1000000000/minute"
_RAISED_LIMITS = {
    "EDGE_LIMITS": "off",
    **{
        f"LIMIT_{name}": _UNLIMITED
        for name in ("AUTH", "AUTH_EMAIL", "ANONYMOUS", "STANDARD", "PREMIUM", "BOOKING", "ADDRESS", "CHAT")
    },
}
_TOKEN_TTL_S = 3600
_USERS_AT_ONCE = 16
_STORES_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Target:
    """Some processes behind an Nginx of the same configuration."""

    url: str
    processes: tuple[Process, ...]

    def pids(self) -> list[int]:
        """Return the pids of the processes. Raises StartFailedError if one is just not running."""
        pids = [process.pid for process in self.processes]
        if None in pids:
            raise StartFailedError(self.processes[pids.index(None)].name, "died under load")
        return [pid for pid in pids if pid is not None]

    def cpu_s(self) -> dict[int, float]:
        """Return the CPU-seconds that each process has used so far, user and system, by pid."""
        times = {pid: psutil.Process(pid).cpu_times() for pid in self.pids()}
        return {pid: spent.user + spent.system for pid, spent in times.items()}

    def rss_mb(self) -> list[float]:
        """Return the resident memory of each process."""
        return [psutil.Process(pid).memory_info().rss / 1e6 for pid in self.pids()]


class Rig:
    """The running cluster. Use `started`."""

    def __init__(self, plan: Plan, cluster: Cluster, surroundings: Surroundings) -> None:
        """`cluster` has been started."""
        self._layout = plan.layout
        self._around = surroundings
        self._cluster = cluster
        self.application = Target(plan.url, tuple(cluster.fleet.replicas))

    @classmethod
    @asynccontextmanager
    async def started(
        cls, layout: Layout, *, replicas: int, announcer: Announcer, clock: Clock
    ) -> AsyncIterator["Rig"]:
        """Start a cluster in an empty folder; stop it and everything else at the end.

        Raises StartFailedError.
        """
        layout.prepare()
        ports = Ports()
        plan = Plan(layout, replicas, workers=1, port=ports.pick())
        journal = Journal(layout.journal, control=layout.control_socket, url=plan.url)
        inherited = {
            name: value for name, value in os.environ.items() if name not in {"MONGODB_URI", "REDIS_URL"}
        }
        async with asyncio.TaskGroup() as group:
            surroundings = Surroundings(journal, announcer, ports, clock, group)
            cluster = Cluster(plan, {**inherited, **_RAISED_LIMITS}, surroundings)
            try:
                await cluster.start()
                yield cls(plan, cluster, surroundings)
            finally:
                await cluster.stop()
                journal.remove()

    @asynccontextmanager
    async def kit(self) -> AsyncIterator[StateKit]:
        """Open the cluster's stores, to make what the scenarios need."""
        stores = (await self._cluster.status())["stores"]
        settings = Settings(
            mongodb_uri=stores["mongo"]["uri"],
            redis_url=stores["redis"]["url"],
            jwt_secret=self._layout.secret("jwt"),
            access_token_ttl_s=_TOKEN_TTL_S,
            replica_name="bench",
        )
        async with open_kit(settings) as kit:
            async with asyncio.timeout(_STORES_TIMEOUT_S):
                while not (kit.mongo.health.status == kit.redis.health.status == "pass"):  # noqa: ASYNC110  # probes tell nobody
                    await asyncio.sleep(0.05)
            yield kit

    @asynccontextmanager
    async def floor(self, scenario: Scenario, load: Load) -> AsyncIterator[Target]:
        """Start the scenario's floor, a process a replica, behind an Nginx like theirs."""
        stores = (await self._cluster.status())["stores"]
        answer = self._layout.run / "floor-answer"
        answer.write_bytes(load.answer)
        environment = {
            **engine_environment(),
            "MONGODB_URI": stores["mongo"]["uri"],
            "REDIS_URL": stores["redis"]["url"],
            "FLOOR_ANSWER": str(answer),
        }
        floors = tuple(
            self._process(f"floor-{number}", _floor_recipe(self._layout, scenario.name, environment))
            for number in range(1, len(self.application.processes) + 1)
        )
        edge = self._process("floor-nginx", lambda port: _nginx_program(self._layout, floors, port))
        try:
            for process in floors:
                process.begin()
            await asyncio.gather(*(process.wait_ready() for process in floors))
            edge.begin()
            await edge.wait_ready()
            yield Target(f"http://localhost:{edge.port}", floors)
        finally:
            await asyncio.gather(*(process.stop() for process in (edge, *floors)))

    def _process(self, name: str, recipe: Recipe) -> Process:
        return Process(name, recipe, self._around, port=self._around.ports.pick(), keeps_port=True)


async def make_world(kit: StateKit, url: str, *, users: int, runs: int) -> World:
    """Make that many logged-in users of one company, who may do anything in it."""
    tenant = await kit.tenants.create(name="Bench")
    at_once = asyncio.Semaphore(_USERS_AT_ONCE)

    async def make_user(number: int) -> User:
        async with at_once:
            account = await kit.accounts.create(
                tenant_id=tenant.id,
                email=f"{new_id('usr').lower()}@bench.example",
                name=f"User {number}",
                role="admin",
                password_hash="none",  # noqa: S106  # nobody logs in with it
            )
            login, _ = await kit.logins.start(account, Device("bench", LOOPBACK))
        token = kit.tokens.mint(
            login_id=login.id, user_id=account.id, tenant_id=tenant.id, issued_at=kit.clock.now()
        )
        return User(Owner(tenant.id, account.id), token)

    return World(kit, url, await asyncio.gather(*(make_user(number) for number in range(users))), runs)


def _floor_recipe(layout: Layout, scenario: str, environment: dict[str, str]) -> Recipe:
    def program(port: int) -> Program:
        async def ready(_: Child) -> bool:
            return await http_ready(port)

        return Program(
            argv=(sys.executable, "-m", "bench.floor", scenario),
            cwd=REPOSITORY,
            env={**environment, "PORT": str(port)},
            log=layout.log("floor"),
            ready=ready,
            address=f"{LOOPBACK}:{port}",
        )

    return program


def _nginx_program(layout: Layout, floors: tuple[Process, ...], port: int) -> Program:
    site = nginx.NginxSite(
        port=port,
        upstreams=tuple(f"{LOOPBACK}:{process.port}" for process in floors),
        run_dir=layout.nginx / "floor",
        web_root=REPOSITORY / "web" / "dist",
        proxy_bind=PROXY_SOURCE,
    )

    async def ready(_: Child) -> bool:
        return await http_ready(port)

    return Program(
        argv=tuple(nginx.command(nginx.write(site))),
        cwd=layout.nginx,
        env=engine_environment(),
        log=layout.log("floor-nginx"),
        ready=ready,
        address=f"localhost:{port}",
    )
