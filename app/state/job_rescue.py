"""Frees the jobs of workers that died, froze, or lost their MongoDB for longer than a lease.

Every worker looks each RESCUE_S for leases that are over by MongoDB's clock. It makes one update that names
the epoch and asks again whether the lease is over: a job that was completed or renewed in between stays as it
is. So a killed worker's job is free within its lease and RESCUE_S or so. What the dead left open in a
transaction has been ended by then (`processes`), for a lease is longer than that takes.
"""

import asyncio
import logging
import random
from collections.abc import Mapping
from contextlib import suppress

from pymongo.errors import PyMongoError

from app.core.clock import Clock
from app.core.errors import StoreUnavailableError
from app.core.moments import to_milliseconds
from app.state import job_transitions as transitions
from app.state.job_index import JobIndex
from app.state.job_run import Handler, Run
from app.state.job_tally import JobTally
from app.state.mongo import Document, MongoStore

_log = logging.getLogger(__name__)

RESCUE_S = 1.0
_RESCUED_AT_ONCE = 100


class JobRescue:
    """Counts crashes and frees, or gives up, what they left. One a worker."""

    def __init__(
        self,
        *,
        mongo: MongoStore,
        index: JobIndex,
        clock: Clock,
        tally: JobTally,
        handlers: Mapping[str, Handler],
    ) -> None:
        """`handlers` are by type; of others a rescuer knows only the defaults. `clock` follows MongoDB's."""
        self._mongo = mongo
        self._index = index
        self._clock = clock
        self._tally = tally
        self._handlers = handlers
        self._rows = mongo.collection("jobs")

    async def rescue_forever(self) -> None:
        """Every RESCUE_S, free the jobs of dead workers. Runs in a worker's tasks."""
        while True:
            await asyncio.sleep(RESCUE_S * random.uniform(0.75, 1.25))  # noqa: S311  # spreads workers
            with suppress(StoreUnavailableError):
                await self.rescue()

    async def rescue(self) -> None:
        """Count a crash for every job whose lease is over; free it, or give it up if there were too many."""
        over = {"lease_expires_at": {"$lte": self._clock.now()}}
        async with self._mongo.guard("jobs.find_abandoned"):
            rows = await self._rows.find(over, {"payload": 0}).limit(_RESCUED_AT_ONCE).to_list(None)
        for row in rows:
            try:
                await self._rescue(row)
            except PyMongoError as error:
                _log.error("job_not_rescued", extra={"job_id": row["_id"], "reason": str(error)})

    async def _rescue(self, row: Document) -> None:
        handler = self._handlers.get(row["type"]) or Handler(row["type"], _nothing)
        crashes = row["crashes"] + 1
        message = f"The lease of {row['worker']} was over: it died, froze, or lost its MongoDB."
        run_at = self._clock.now() + handler.next_try(crashes)
        if crashes >= handler.crashes_max:
            outcome, changes = "dead", transitions.dead("crash", message)
        else:
            outcome, changes = "crashed", transitions.failed("crash", message, run_at=run_at)
        wanted = {"_id": row["_id"], "epoch": row["epoch"], "state": "processing"}
        async with self._mongo.guard("jobs.rescue"):
            result = await self._rows.update_one(wanted, transitions.guarded(transitions.LEASE_OVER, changes))
        if result.modified_count == 1:
            fields = {"job_id": row["_id"], "type": row["type"], "crashes": crashes, "of": row["worker"]}
            _log.warning(f"job_{outcome}", extra=fields)
            self._tally.count(row["type"], outcome)
            if outcome == "crashed":
                with suppress(StoreUnavailableError):
                    await self._index.add(
                        [{**row, "run_at": run_at}], now_ms=to_milliseconds(self._clock.now())
                    )


async def _nothing(_: Run) -> None:
    """Do nothing: the handler of a type that has none, for its back-off."""
