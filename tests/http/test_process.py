"""`python -m app.main` as a process: how it starts, how it fails to, how it leaves, what it writes."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import orjson
import pytest

from app.core.logging import LogSink
from app.core.settings import Settings
from tests.engines import MongoEngine, RedisEngine, Replica
from tests.waiting import until


@pytest.fixture
def unreachable(tmp_path: Path) -> Iterator[Replica]:
    """A replica whose stores are not there."""
    settings = Settings(
        mongodb_uri="mongodb://127.0.0.1:9/none", redis_url="redis://127.0.0.1:9/0", jwt_secret="x" * 64
    )
    replica = Replica(tmp_path / "replica", settings, name="replica-alone")
    yield replica
    replica.stop()


def run(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.main"],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"APP_ENV": "production"}, "MONGODB_URI"),
        ({"APP_ENV": "production", "MONGODB_URI": "mongodb://m", "REDIS_URL": "redis://r"}, "JWT_SECRET"),
        ({"PORT": "many"}, "PORT"),
        ({"LIMIT_STANDARD": "a lot"}, "LIMIT_STANDARD"),
    ],
)
def test_a_wrong_environment_is_one_line_that_names_the_variable(
    environment: dict[str, str], named: str
) -> None:
    result = run(**environment)
    assert result.returncode == 78
    assert result.stderr.count("\n") == 1
    assert named in result.stderr
    assert result.stdout == ""


def test_a_port_in_use_is_one_line() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = run(PORT=str(port))
    assert result.returncode == 69
    assert result.stderr.count("\n") == 1
    assert f"127.0.0.1:{port}" in result.stderr


def test_without_stores_it_starts_alive_but_not_ready(unreachable: Replica) -> None:
    unreachable.start()
    assert unreachable.status_of("/health") == 200
    assert unreachable.status_of("/ready") == 503


def test_it_becomes_ready_when_the_stores_come_up_later(tmp_path: Path) -> None:
    mongo, redis = MongoEngine(tmp_path / "mongo"), RedisEngine(tmp_path / "redis")
    settings = Settings(mongodb_uri=mongo.uri("late"), redis_url=redis.url, jwt_secret="x" * 64)
    replica = Replica(tmp_path / "replica", settings, name="replica-early")
    try:
        replica.start()
        assert replica.status_of("/ready") == 503
        mongo.start()
        redis.start()
        replica.wait_until_ready()
    finally:
        for engine in (replica, mongo, redis):
            engine.stop()


def test_sigterm_fails_readiness_for_the_grace_then_it_exits_with_0(unreachable: Replica) -> None:
    unreachable._changes["DRAIN_GRACE_S"] = "2"
    unreachable.start()
    unreachable.terminate()
    with httpx.Client(base_url=unreachable.url) as client:
        while (answer := client.get("/ready").json())["code"] != "draining":
            assert unreachable.alive
        assert answer["status"] == "fail"
        assert client.get("/health").status_code == 200
    assert unreachable.process.wait(20) == 0


def test_without_a_grace_sigterm_ends_it_at_once_with_0(unreachable: Replica) -> None:
    unreachable.start()
    unreachable.terminate()
    assert unreachable.process.wait(20) == 0


def test_every_line_it_writes_is_a_json_object_with_its_name(unreachable: Replica) -> None:
    unreachable.start()
    unreachable.status_of("/health?token=eyJhbGciOi.eyJzdWIi.c2ln")
    unreachable.terminate()
    unreachable.process.wait(20)
    lines = [orjson.loads(line) for line in unreachable.log().splitlines()]
    assert all(line["replica"] == "replica-alone" for line in lines)
    assert any(line["logger"] == "uvicorn.error" for line in lines)
    assert any(line["message"] == "request" for line in lines)
    assert "eyJ" not in unreachable.log()


async def test_a_reader_that_stops_reading_the_log_stops_nobody(unreachable: Replica) -> None:
    read_end, write_end = os.pipe()
    process = subprocess.Popen(  # noqa: ASYNC220  # starting takes no time worth awaiting
        unreachable.command(), env=unreachable.environment(), stdout=write_end, stderr=subprocess.STDOUT
    )
    os.close(write_end)
    try:
        await until(lambda: unreachable.status_of("/health") == 200)
        async with httpx.AsyncClient(base_url=unreachable.url) as client:
            for _ in range(600):  # over 150 KB of log into a pipe of 64 KB
                assert (await client.get("/health")).status_code == 200
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(read_end)


def test_a_full_queue_drops_lines_and_says_how_many() -> None:
    read_end, write_end = os.pipe()
    sink = LogSink(write_end, lines_max=100)
    filler = b'{"message":"' + b"x" * 1000 + b'"}\n'
    for _ in range(100_000 // 100):
        sink.write(filler)
    received: list[bytes] = []

    def read_all() -> None:
        while chunk := os.read(read_end, 65536):
            received.append(chunk)

    reader = threading.Thread(target=read_all)
    reader.start()
    sink.write(b'{"message":"after"}\n')
    sink.close()
    os.close(write_end)
    reader.join()
    os.close(read_end)
    lines = [orjson.loads(line) for line in b"".join(received).splitlines()]
    written = sum(line["message"].startswith("x") for line in lines)
    dropped = sum(line["lines"] for line in lines if line["message"] == "log_lines_dropped")
    assert dropped > 0
    assert written + dropped in {1000, 1001}  # the last line may have found the queue full
