"""The order of a run: each scenario's rounds, floor and application one right after the other; the crowds of
`reviewers` and `steady` last.

Who goes first changes from round to round, so that neither always finds the machine as the other left it.
"""

from dataclasses import replace
from pathlib import Path

from app.cluster.events import Announcer
from app.cluster.layout import Layout
from app.core.clock import Clock
from bench.measure import Wrk
from bench.report import Plan, Report, Result, Round
from bench.reviewers import NAME as REVIEWERS
from bench.reviewers import USERS as REVIEWERS_USERS
from bench.reviewers import measure_reviewers
from bench.rig import Rig, Target, make_world
from bench.scenario import World, load_scenario
from bench.steady import NAME as STEADY
from bench.steady import USERS as STEADY_USERS
from bench.steady import measure_steady

_CROWDS = {REVIEWERS: REVIEWERS_USERS, STEADY: STEADY_USERS}
"""Scenarios that are not wrk's, and how many users each needs."""
_WARM_UP_S = 3
"""Longer than the slowest answer: 64 turns of a chat at once take the local engine more than a second."""


async def run(plan: Plan, layout: Layout, wrk: str, announcer: Announcer, clock: Clock) -> Report:
    """Start a cluster in `layout`, measure, stop it. `wrk` is its path.

    Raises StartFailedError and MeasurementError; whatever happens nothing is left running.
    """
    rig_of = Rig.started(layout, replicas=plan.replicas, announcer=announcer, clock=clock)
    async with rig_of as rig, rig.kit() as kit:
        crowd = max((size for name, size in _CROWDS.items() if name in plan.scenarios), default=0)
        users = max(plan.users, crowd)
        announcer.say("users", "busy", f"making {users}")
        world = await make_world(kit, rig.application.url, users=users, runs=2 * (plan.rounds + 1))
        announcer.say("users", "done", f"{users} are logged in")
        some = replace(world, users=world.users[: plan.users])
        bench = _Bench(plan, rig, some, wrk=wrk, folder=layout.run, announcer=announcer)
        results = [await bench.measure(name) for name in plan.scenarios if name not in _CROWDS]
        seconds = plan.rounds * plan.seconds
        reviewers = steady = None
        if REVIEWERS in plan.scenarios:
            announcer.say(REVIEWERS, "busy", f"{REVIEWERS_USERS} of them, {seconds} s")
            reviewers = await measure_reviewers(world, rig.application, layout.run, seconds=seconds)
            announcer.say(REVIEWERS, "done", f"{reviewers.requests} requests, p95 {reviewers.p95_ms:.0f} ms")
        if STEADY in plan.scenarios:
            announcer.say(STEADY, "busy", f"{STEADY_USERS} users, {seconds} s")
            steady = await measure_steady(world, rig.application, layout.run, seconds=seconds)
            announcer.say(STEADY, "done", f"{steady.requests} requests, p95 {steady.p95_ms:.0f} ms")
        return Report(plan, results, steady, reviewers)


class _Bench:
    """The scenarios that wrk runs."""

    def __init__(
        self, plan: Plan, rig: Rig, world: World, *, wrk: str, folder: Path, announcer: Announcer
    ) -> None:
        self._plan = plan
        self._rig = rig
        self._world = world
        self._wrk = wrk
        self._folder = folder
        self._announcer = announcer

    async def measure(self, name: str) -> Result:
        """Measure one scenario."""
        scenario = load_scenario(name)
        self._announcer.say(name, "busy", "making what it needs")
        load = await scenario.prepare(self._world)
        wrk = Wrk(self._wrk, self._folder, scenario, load, connections=self._plan.connections)
        async with self._rig.floor(scenario, load) as floor:
            for target in (floor, self._rig.application):
                await wrk.measure(target, _WARM_UP_S)
            rounds = [
                await self._round(wrk, floor, name, number) for number in range(1, self._plan.rounds + 1)
            ]
        return Result(scenario, rounds)

    async def _round(self, wrk: Wrk, floor: Target, name: str, number: int) -> Round:
        targets = {"floor": floor, "application": self._rig.application}
        order = list(targets) if number % 2 else list(reversed(targets))
        samples = {}
        for which in order:
            what = f"round {number} of {self._plan.rounds}, {which}, {self._plan.seconds} s"
            self._announcer.say(name, "busy", what)
            samples[which] = await wrk.measure(targets[which], self._plan.seconds)
        measured = Round(samples["floor"], samples["application"])
        seen = f"{measured.application.requests_per_s:,.0f} requests/s, {measured.ratio:.2f} floors"
        self._announcer.say(name, "done", f"round {number} of {self._plan.rounds}: {seen}")
        return measured
