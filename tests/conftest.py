"""Fixtures every test may ask for. They run the real engines; nothing here is a stand-in.

- `mongo_engine`, `redis_engine`: the processes, one pair a test session; `freeze()`, `thaw()`, `kill()`,
  `restart()`. A test that breaks an engine need not mend it: whoever asks for `mongo_uri` or `redis_url` next
  finds it running.
- `mongo_uri`: a database of its own for each test. `redis_url`: an emptied Redis for each test.
- `settings`: development settings that point at both. `@pytest.mark.settings(limit_auth="3/minute")` changes
  some.
- `kit`: the opened `StateKit`, ready (both stores were reached).
- `app`: a `create_app(settings)` whose lifespan runs and whose stores were reached; `client`: an
  `httpx.AsyncClient` inside the same process.
- `replicas`: base URLs of real `python -m app.main` processes on the same stores, two unless
  `@pytest.mark.replicas(3)`, all ready; `replica_processes`: the same as `tests.engines.Replica`, to freeze,
  kill or terminate.
"""

import secrets
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fastapi import FastAPI

from app.core.settings import Settings
from tests.engines import MongoEngine, RedisEngine, Replica
from tests.waiting import held_by_one_task, until

if TYPE_CHECKING:
    from app.state.kit import StateKit


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "settings(**changes): run with these fields of Settings changed")
    config.addinivalue_line(
        "markers", "replicas(count): how many real replicas the `replicas` fixture starts"
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Reports travel between processes as UTF-8; half a surrogate pair in a log would stop all."""
    report = yield
    report.sections = [(title, text.encode(errors="replace").decode()) for title, text in report.sections]
    return report


@pytest.fixture(scope="session")
def mongo_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoEngine]:
    engine = MongoEngine(tmp_path_factory.mktemp("mongo"))
    engine.start()
    yield engine
    engine.stop()


@pytest.fixture(scope="session")
def redis_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisEngine]:
    engine = RedisEngine(tmp_path_factory.mktemp("redis"))
    engine.start()
    yield engine
    engine.stop()


def _mend(engine: MongoEngine | RedisEngine) -> None:
    if engine.alive:
        engine.thaw()
        engine.wait_until_it_answers()
    else:
        engine.start()


@pytest.fixture
def mongo_uri(mongo_engine: MongoEngine) -> Iterator[str]:
    _mend(mongo_engine)
    database = f"test_{secrets.token_hex(6)}"
    yield mongo_engine.uri(database)
    _mend(mongo_engine)
    mongo_engine.drop(database)


@pytest.fixture
def redis_url(redis_engine: RedisEngine) -> Iterator[str]:
    _mend(redis_engine)
    redis_engine.flush()
    yield redis_engine.url
    _mend(redis_engine)


@pytest.fixture
def settings(mongo_uri: str, redis_url: str, request: pytest.FixtureRequest) -> Settings:
    values: dict[str, Any] = {
        "app_env": "development",
        "replica_name": "replica-test",
        "mongodb_uri": mongo_uri,
        "redis_url": redis_url,
        "jwt_secret": secrets.token_urlsafe(48),
    }
    for marker in request.node.iter_markers("settings"):
        values = {
            **marker.kwargs,
            **{name: value for name, value in values.items() if name not in marker.kwargs},
        }
    return Settings(**values)


@pytest.fixture
async def kit(settings: Settings) -> "AsyncIterator[StateKit]":
    from app.state.kit import open_kit  # noqa: PLC0415  # tests that need no stores don't import their clients

    async with held_by_one_task(open_kit(settings)) as opened:
        await until(lambda: opened.mongo.health.status == "pass" and opened.redis.health.status == "pass")
        yield opened


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[FastAPI]:
    from app.main import create_app  # noqa: PLC0415  # tests that need no application don't import it all

    application = create_app(settings)
    async with held_by_one_task(application.router.lifespan_context(application)):
        opened: StateKit = application.state.kit
        await until(lambda: opened.mongo.health.status == "pass" and opened.redis.health.status == "pass")
        yield application


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, client=("127.0.0.1", 50000))
    async with httpx.AsyncClient(transport=transport, base_url="http://cargoflow.test") as http:
        yield http


@pytest.fixture
def replica_processes(
    settings: Settings, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[list[Replica]]:
    marker = request.node.get_closest_marker("replicas")
    count = marker.args[0] if marker else 2
    started = [Replica(tmp_path / f"replica-{n}", settings, name=f"replica-{n}") for n in range(1, count + 1)]
    try:
        for replica in started:
            replica.spawn()
        for replica in started:
            replica.wait_until_it_answers()
            replica.wait_until_ready()
        yield started
    finally:
        for replica in started:
            if replica.alive:
                replica.thaw()
                replica.terminate()
        for replica in started:
            replica.stop()


@pytest.fixture
def replicas(replica_processes: list[Replica]) -> list[str]:
    return [replica.url for replica in replica_processes]
