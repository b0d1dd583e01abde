"""Workers for tests: in this process, or as processes that a test can freeze and kill."""

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from motor.motor_asyncio import AsyncIOMotorClient

from app.core.errors import NotFoundError
from app.core.settings import Settings
from app.state.job_documents import Job
from app.state.job_run import Handler
from app.state.job_worker import work_on_jobs
from app.state.kit import StateKit
from app.state.schedule import Scheduled
from tests.engines import as_environment
from tests.waiting import held_by_one_task


@asynccontextmanager
async def working(
    kit: StateKit, *handlers: Handler, outboxes: Sequence[str] = (), table: Sequence[Scheduled] = ()
) -> AsyncIterator[asyncio.Event]:
    """Run a worker on this kit; setting the event, or leaving, drains it."""

    @asynccontextmanager
    async def held() -> AsyncIterator[asyncio.Event]:
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(work_on_jobs(kit, stop, handlers=handlers, outboxes=outboxes, table=table))
            try:
                yield stop
            finally:
                stop.set()

    async with held_by_one_task(held()) as stop:
        yield stop


async def until_over(kit: StateKit, job_id: str, tenant_id: str = "", *, timeout_s: float = 30) -> Job:
    """Return the job once it is there, and completed or dead."""
    async with asyncio.timeout(timeout_s):
        while True:
            with suppress(NotFoundError):
                job = await kit.jobs.get(tenant_id, job_id)
                if job.state in {"completed", "dead"}:
                    return job
            await asyncio.sleep(0.02)


class WorkerProcess:
    """A process of `tests.state.job_worker`, or of another module of tests."""

    def __init__(
        self,
        settings: Settings,
        name: str,
        *arguments: str,
        mongo_timeout_s: float = 2,
        module: str = "tests.state.job_worker",
    ) -> None:
        self._settings = settings
        self.name = name
        self._arguments = arguments
        self._module = module
        self._mongo_timeout_s = mongo_timeout_s
        self._process: asyncio.subprocess.Process | None = None

    @property
    def process(self) -> asyncio.subprocess.Process:
        assert self._process is not None
        return self._process

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", self._module, *self._arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={
                **os.environ,
                **as_environment(self._settings),
                "REPLICA_NAME": self.name,
                "MONGO_TIMEOUT_S": str(self._mongo_timeout_s),
            },
        )

    async def says(self, timeout_s: float = 30) -> str:
        assert self.process.stdout is not None
        async with asyncio.timeout(timeout_s):
            return (await self.process.stdout.readline()).decode().strip()

    def send(self, sent: signal.Signals) -> None:
        self.process.send_signal(sent)

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"go\n")

    async def end(self, sent: signal.Signals = signal.SIGKILL) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(sent)
        await self.process.communicate()


@asynccontextmanager
async def worker_processes(
    settings: Settings,
    count: int,
    *arguments: str,
    mongo_timeout_s: float = 2,
    module: str = "tests.state.job_worker",
) -> AsyncIterator[list[WorkerProcess]]:
    """Start so many workers; end them with SIGKILL, and what they left open in transactions: on the local
    engine, dropping a database waits for those forever.
    """
    workers = [
        WorkerProcess(settings, f"worker-{n}", *arguments, mongo_timeout_s=mongo_timeout_s, module=module)
        for n in range(1, count + 1)
    ]
    try:
        for worker in workers:
            await worker.start()
        yield workers
    finally:
        for worker in workers:
            if worker.alive:
                await worker.end()
        client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(
            settings.mongodb_uri.get_secret_value()
        )
        await client.admin.command("killAllSessions", [])
        client.close()


@asynccontextmanager
async def restarted(workers: list[WorkerProcess]) -> AsyncIterator[None]:
    """Start again what dies, as a supervisor would."""

    async def watch(worker: WorkerProcess) -> None:
        while True:
            await worker.process.wait()
            await worker.start()

    async with asyncio.TaskGroup() as tasks:
        watching = [tasks.create_task(watch(worker)) for worker in workers]
        yield
        for task in watching:
            task.cancel()


@asynccontextmanager
async def killed_one_by_one(workers: list[WorkerProcess], *, every_s: float) -> AsyncIterator[list[str]]:
    """Kill one of them, by lot, every so often, and start it again; yields the list of those killed."""
    killed: list[str] = []

    async def kill() -> None:
        while True:
            await asyncio.sleep(every_s)
            worker = random.choice(workers)  # noqa: S311  # which one is not a secret
            if worker.alive:
                worker.send(signal.SIGKILL)
                killed.append(worker.name)

    async with restarted(workers), asyncio.TaskGroup() as tasks:
        killing = tasks.create_task(kill())
        yield killed
        killing.cancel()
