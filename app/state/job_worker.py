"""Everything that goes on in a worker, put together: the job runner, the schedule, and the sweeps."""

import asyncio
from collections.abc import Sequence

from app.state.job_claims import JobClaims
from app.state.job_reconcile import JobReconciler
from app.state.job_rescue import JobRescue
from app.state.job_run import Handler
from app.state.job_runner import JobRunner
from app.state.kit import StateKit
from app.state.schedule import Schedule, Scheduled

_READY_POLL_S = 0.1


async def work_on_jobs(
    kit: StateKit,
    stop: asyncio.Event,
    *,
    handlers: Sequence[Handler],
    outboxes: Sequence[str],
    table: Sequence[Scheduled],
) -> None:
    """Run jobs, tick, relay outboxes and sweep until `stop` is set; drain, then return.

    Waits for MongoDB first: an index that is not there yet would let in what it exists to keep out. Raises
    ValueError for two handlers of one type, or a schedule whose type has none.
    """
    by_type = {handler.type: handler for handler in handlers}
    if len(by_type) != len(handlers):
        raise ValueError("two handlers are for the same type of job")
    for line in table:
        if line.job_type not in by_type:
            raise ValueError(f"the schedule {line.name} makes jobs that nobody handles: {line.job_type}")
    claims = JobClaims(
        mongo=kit.mongo,
        index=kit.job_index,
        pauses=kit.job_pauses,
        transactions=kit.transactions,
        clock=kit.clock,
        worker=kit.settings.replica_name,
        handlers=by_type,
    )
    runner = JobRunner(
        claims=claims,
        index=kit.job_index,
        tally=kit.job_tally,
        clock=kit.clock,
        handlers=by_type,
        concurrency=kit.settings.worker_concurrency,
    )
    rescue = JobRescue(
        mongo=kit.mongo, index=kit.job_index, clock=kit.clock, tally=kit.job_tally, handlers=by_type
    )
    reconciler = JobReconciler(mongo=kit.mongo, index=kit.job_index, clock=kit.clock)
    schedule = Schedule(mongo=kit.mongo, jobs=kit.jobs, clock=kit.clock, table=table)
    await _mongodb_is_ready(kit, stop)
    async with asyncio.TaskGroup() as tasks:
        sweeps = [
            tasks.create_task(rescue.rescue_forever()),
            tasks.create_task(reconciler.reconcile_forever()),
            tasks.create_task(kit.job_pauses.sweep_forever()),
            tasks.create_task(kit.jobs.relay_forever(outboxes)),
            tasks.create_task(schedule.tick_forever()),
        ]
        await runner.run(stop, drain_timeout_s=kit.settings.drain_timeout_s)
        for task in sweeps:
            task.cancel()


async def _mongodb_is_ready(kit: StateKit, stop: asyncio.Event) -> None:
    while kit.mongo.health.status != "pass" and not stop.is_set():  # noqa: ASYNC110  # a probe's answer
        await asyncio.sleep(_READY_POLL_S)
