"""A real cluster for tests that need one: what `./cargoflow up` starts, with handles to look at and break it.

    with Cluster(tmp_path / "data", replicas=3, env={"LIMIT_AUTH": "1000/minute"}) as cluster:
        httpx.get(cluster.url + "/health")
        cluster.kill("replica-2")                      # SIGKILL; the supervisor starts it again
        cluster.wait_for("replica-2")                  # ready again
        cluster.cli("scale", "5")                      # any command, with this cluster's --data

`async with` works as well and does not block the event loop while the cluster starts and stops. The cluster
listens on a free port, keeps everything below the given folder, and is always brought down, also when it was
broken. The caller's environment is handed on, but for MONGODB_URI and REDIS_URL, which would make the cluster
use other stores; name them in `env` to do that.

Names are those of `./cargoflow status`: `replica-1` and so on, `worker-1`, `nginx`, `mongo`, `redis`; also
`supervisor`.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

REPOSITORY = Path(__file__).resolve().parents[2]

_COMMAND_TIMEOUT_S = 180.0
_POLL_S = 0.05


def free_port() -> int:
    """Return a loopback port nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(condition: Callable[[], object], *, timeout_s: float = 60.0) -> None:
    """Return once `condition()` is true. Raises AssertionError if it does not become so."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "what was waited for did not happen"
        time.sleep(_POLL_S)


async def until(condition: Callable[[], object], *, timeout_s: float = 60.0) -> None:
    """Do what `wait_until` does, without blocking the event loop. Raises TimeoutError."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  # what is waited for happens in another process
            await asyncio.sleep(_POLL_S)


class Cluster:
    """One cluster, named by its data folder. Entering it is `up --detach`, leaving it is `down`."""

    def __init__(
        self,
        data: Path,
        *,
        replicas: int = 3,
        workers: int = 1,
        port: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Starts nothing yet. `env` comes on top of this process's environment."""
        self.data = data
        self.replicas = replicas
        self.workers = workers
        self.port = port or free_port()
        inherited = {
            name: value for name, value in os.environ.items() if name not in {"MONGODB_URI", "REDIS_URL"}
        }
        self.environment = {**inherited, **(env or {})}

    @property
    def url(self) -> str:
        """The base URL through Nginx, without a slash at the end."""
        return f"http://localhost:{self.port}"

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.up)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.down)

    def cli(self, command: str, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run one command of this cluster and return it with `stdout`, `stderr`, `returncode`.

        With `check`, a failing command fails the test and shows what it said.
        """
        done = subprocess.run(
            [*self.argv(command, *arguments)],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_TIMEOUT_S,
            check=False,
        )
        if check:
            assert done.returncode == 0, (
                f"./cargoflow {command} exited with {done.returncode}\n{done.stdout}\n{done.stderr}"
            )
        return done

    def argv(self, command: str, *arguments: str) -> list[str]:
        """Return the argument vector of a command of this cluster, for tests that start it themselves."""
        return [str(REPOSITORY / "cargoflow"), command, *arguments, "--data", str(self.data)]

    def up_arguments(self) -> list[str]:
        """Return the options of `up` for this cluster, `--detach` not among them."""
        return ["--replicas", str(self.replicas), "--workers", str(self.workers), "--port", str(self.port)]

    def up(self) -> None:
        """Start it and return when it is ready; brings down what there is if that fails."""
        try:
            self.cli("up", *self.up_arguments(), "--detach")
        except BaseException:
            self.cli("down", check=False)
            raise

    def down(self) -> None:
        """Stop it and whatever is left of it."""
        self.cli("down")

    def status(self) -> dict[str, Any]:
        """Return the document of `status --json`."""
        document: dict[str, Any] = json.loads(self.cli("status", "--json").stdout)
        return document

    def pids(self) -> dict[str, int | None]:
        """Return the pid of every process by name;

        None for one that does not run right now or is not ours.
        """
        status = self.status()
        listed = [*status["replicas"], *status["workers"]]
        return {
            **{process["name"]: process["pid"] for process in listed},
            "nginx": status["nginx"]["pid"],
            **{name: store["pid"] for name, store in status["stores"].items()},
            "supervisor": self._supervisor_pid(),
        }

    def pid(self, name: str) -> int:
        """Return the pid of a running process."""
        pid = self.pids()[name]
        assert pid is not None, f"{name} does not run"
        return pid

    def replica_url(self, name: str) -> str:
        """Return the base URL of one replica, past Nginx."""
        url: str = next(replica["url"] for replica in self.status()["replicas"] if replica["name"] == name)
        return url

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to a process, SIGKILL unless told otherwise; return the pid it had."""
        pid = self.pid(name)
        os.kill(pid, number)
        return pid

    def wait_for(self, name: str, *, not_pid: int | None = None, timeout_s: float = 60.0) -> int:
        """Return the pid of a process once it runs, a replica once it is ready;

        `not_pid` is the one that was killed.
        """

        def serves() -> bool:
            status = self.status()
            ready = {replica["name"]: replica["ready"] for replica in status["replicas"]}
            pid = self.pids()[name]
            return pid not in {None, not_pid} and ready.get(name, True)

        wait_until(serves, timeout_s=timeout_s)
        return self.pid(name)

    def wait_until_ready(self, *, timeout_s: float = 60.0) -> None:
        """Return once `/ready` answers 200 through Nginx."""
        wait_until(lambda: self.get_status("/ready") == 200, timeout_s=timeout_s)

    def get_status(self, path: str) -> int | None:
        """GET a path through Nginx and return the status; None if nobody answers."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as response:  # noqa: S310  # our own http URL
                status: int = response.status
                return status
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:
            return None

    def log(self, name: str) -> str:
        """Return the whole log of a process, `supervisor` included."""
        return (self.data / "logs" / f"{name}.log").read_text(errors="replace")

    def _supervisor_pid(self) -> int | None:
        try:
            journal = json.loads((self.data / "run" / "cluster.json").read_text())
        except FileNotFoundError:
            return None
        pid: int = journal["supervisor"]["pid"]
        return pid
