"""The replicas and workers, and the steps in which they come, go and are replaced while requests come in.

- A replica that becomes ready, whenever and for whatever reason, is admitted to Nginx (the hook of its
process).
- A replica that is to go is ejected first, then told to stop; it finishes what it has.
- Restart: one replica after another, each back and admitted before the next goes. A single replica is joined
by a spare for the time.
- One that dies keeps its port, and stays in Nginx' configuration: a refused connection costs Nginx a retry,
not a request.
"""

import asyncio
from collections.abc import Callable

from app.cluster.edge import Edge
from app.cluster.processes import Process

Maker = Callable[[int], Process]
"""Makes, and does not begin, the process with that number."""


class Fleet:
    """All replicas and workers.

    Its changes run one at a time; a change that fails leaves what served before serving.
    """

    def __init__(self, edge: Edge, *, make_replica: Maker, make_worker: Maker) -> None:
        """Starts nothing; see `scale`."""
        self.replicas: list[Process] = []
        self.workers: list[Process] = []
        self._edge = edge
        self._make_replica = make_replica
        self._make_worker = make_worker
        self._changing = asyncio.Lock()

    async def scale(self, replicas: int, workers: int | None = None) -> None:
        """Have that many replicas and workers (None: as many as now).

        When it returns, the new ones are ready and the surplus is drained and gone. Raises StartFailedError
        if a new one does not come up; then none of the new ones is left, and none of
        the old ones is gone.
        """
        async with self._changing:
            wanted_workers = len(self.workers) if workers is None else workers
            await self._add(
                [self._make_replica(number) for number in range(len(self.replicas) + 1, replicas + 1)],
                [self._make_worker(number) for number in range(len(self.workers) + 1, wanted_workers + 1)],
            )
            await self._remove(self.replicas[replicas:], self.workers[wanted_workers:])

    async def restart(self) -> None:
        """Replace every replica and worker by a fresh one of the same name, without a request failing.

        Raises StartFailedError at the first that does not come up; it goes on being tried, the rest (and a
        spare) go on as they were.
        """
        async with self._changing:
            alone = len(self.replicas) == 1
            if alone:
                await self._add([self._make_replica(2)], [])
            for replica in self.replicas[:1] if alone else self.replicas:
                await self._edge.eject(replica)
                await replica.stop()
                await _begin(replica)
            for worker in self.workers:
                await worker.stop()
                await _begin(worker)
            if alone:
                await self._remove(self.replicas[1:], [])

    async def stop(self) -> None:
        """Drain and end all. Nginx must have gone before; no change may be under way."""
        await asyncio.gather(*(process.stop() for process in (*self.replicas, *self.workers)))

    async def _add(self, replicas: list[Process], workers: list[Process]) -> None:
        self.replicas += replicas
        self.workers += workers
        try:
            await _begin(*replicas, *workers)
        except BaseException:
            await self._remove(replicas, workers)
            raise

    async def _remove(self, replicas: list[Process], workers: list[Process]) -> None:
        if replicas:
            await self._edge.eject(*replicas)
        await asyncio.gather(*(process.stop() for process in (*replicas, *workers)))
        self.replicas = [process for process in self.replicas if process not in replicas]
        self.workers = [process for process in self.workers if process not in workers]


async def _begin(*processes: Process) -> None:
    for process in processes:
        process.begin()
    await asyncio.gather(*(process.wait_ready() for process in processes))
