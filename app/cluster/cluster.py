"""The whole local cluster as one thing: stores, replicas, workers and Nginx, in the order they need."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from app.cluster.application import Stores, environment, replica_program, worker_program
from app.cluster.child import Program
from app.cluster.choreography import Fleet
from app.cluster.edge import Edge
from app.cluster.engines import ExternalStores, mongo_program, mongo_uri, redis_program, redis_url
from app.cluster.failures import StartFailedError
from app.cluster.layout import Layout
from app.cluster.plan import Plan
from app.cluster.ports import LOOPBACK, is_free
from app.cluster.probes import http_ready
from app.cluster.processes import Process, Surroundings

_GREEN_TIMEOUT_S = 30.0
_GREEN_POLL_S = 0.1


class Cluster:
    """Every process of one plan. Making it starts nothing."""

    def __init__(self, plan: Plan, given: Mapping[str, str], surroundings: Surroundings) -> None:
        """`given` is the environment that replicas and workers inherit, and that may name others' stores."""
        self._plan = plan
        self._given = given
        self._around = surroundings
        self._jwt_secret = plan.layout.secret("jwt")
        self._external = ExternalStores.named_by(given)
        self._mongo = None if self._external.mongo_uri else self._store("mongo", mongo_program)
        self._redis = None if self._external.redis_url else self._store("redis", redis_program)
        limits = given.get("EDGE_LIMITS", "").lower() == "on"
        self.edge = Edge(plan.layout, plan.port, limits=limits, surroundings=surroundings)
        self.fleet = Fleet(self.edge, make_replica=self._replica, make_worker=self._worker)

    async def start(self) -> None:
        """Start everything; return when `/ready` is green through Nginx.

        Raises StartFailedError for the first thing that does not come up; `stop` then ends the rest.
        """
        if not is_free(self._plan.port):
            raise StartFailedError(
                "nginx", f"can't listen: port {self._plan.port} is in use; choose another with --port"
            )
        await self._external.check()
        stores = self._own_stores()
        for store in stores:
            store.begin()
        await asyncio.gather(*(store.wait_ready() for store in stores))
        await self.fleet.scale(self._plan.replicas, self._plan.workers)
        self.edge.process.begin()
        await self.edge.process.wait_ready()
        try:
            async with asyncio.timeout(_GREEN_TIMEOUT_S):
                while not await http_ready(self._plan.port):  # noqa: ASYNC110  # it tells nobody
                    await asyncio.sleep(_GREEN_POLL_S)
        except TimeoutError:
            raise StartFailedError(
                "nginx", f"runs, but {self._plan.url}/ready does not answer 200 through it"
            ) from None

    async def stop(self) -> None:
        """End everything in bounded time: Nginx, then replicas and workers, which drain, then the stores."""
        await self.edge.process.stop()
        await self.fleet.stop()
        await asyncio.gather(*(store.stop() for store in self._own_stores()))

    def kill(self) -> None:
        """End what is still stopping at once."""
        for process in (self.edge.process, *self.fleet.replicas, *self.fleet.workers, *self._own_stores()):
            process.kill()

    async def status(self) -> dict[str, Any]:
        """Return what runs, in the shape of `status --json` plus `external`, the stores that others run.

        Asks every replica if it is ready.
        """
        replicas = tuple(self.fleet.replicas)
        ready = await asyncio.gather(*(http_ready(replica.port) for replica in replicas))
        stores = self._stores()
        return {
            "url": self._plan.url,
            "nginx": {"pid": self.edge.process.pid},
            "replicas": [
                {
                    "name": replica.name,
                    "pid": replica.pid,
                    "url": f"http://{LOOPBACK}:{replica.port}",
                    "ready": is_ready,
                }
                for replica, is_ready in zip(replicas, ready, strict=True)
            ],
            "workers": [{"name": worker.name, "pid": worker.pid} for worker in self.fleet.workers],
            "stores": {
                "mongo": {"pid": self._mongo.pid if self._mongo else None, "uri": stores.mongo_uri},
                "redis": {"pid": self._redis.pid if self._redis else None, "url": stores.redis_url},
            },
            "external": [
                name for name, store in (("mongo", self._mongo), ("redis", self._redis)) if store is None
            ],
        }

    def _store(self, name: str, make_program: Callable[[Layout, int], Program]) -> Process:
        return Process(
            name,
            lambda port: make_program(self._plan.layout, port),
            self._around,
            port=self._around.ports.pick(),
            keeps_port=True,
        )

    def _replica(self, number: int) -> Process:
        name = f"replica-{number}"
        return Process(
            name,
            lambda port: replica_program(self._plan.layout, self._common_environment(), name, port),
            self._around,
            port=self._around.ports.pick(),
            when_ready=self.edge.admit,
        )

    def _worker(self, number: int) -> Process:
        name = f"worker-{number}"
        return Process(
            name, lambda _: worker_program(self._plan.layout, self._common_environment(), name), self._around
        )

    def _own_stores(self) -> list[Process]:
        return [store for store in (self._mongo, self._redis) if store]

    def _stores(self) -> Stores:
        return Stores(
            mongo_uri=mongo_uri(self._mongo.port) if self._mongo else self._external.mongo_uri,
            redis_url=redis_url(self._redis.port) if self._redis else self._external.redis_url,
        )

    def _common_environment(self) -> dict[str, str]:
        return environment(
            self._given, stores=self._stores(), jwt_secret=self._jwt_secret, edge_port=self._plan.port
        )
