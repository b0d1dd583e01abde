"""Whatever is done to sessions through two replicas, in whatever order or at the same time, a dictionary
in memory would have answered the same.

Hypothesis makes up the histories. Two operations at once must come out as one of the two orders would have.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, multiple, rule, run_state_machine_as_test

from app.core.errors import NotFoundError, VersionConflictError
from app.core.merge_patch import merge_patch
from app.core.settings import Settings
from app.state import keys
from app.state.kit import StateKit
from app.state.session_documents import Owner, hot_name
from tests.cluster.counts import full
from tests.state.two_replicas import World

EXAMPLES = full(1000, 100)
STEPS = 20

Data = dict[str, Any]
State = tuple[Data, int] | None
"""Data and version; None: there is no such session."""
Outcome = tuple[str, Data, int]
"""What came of it, and what was answered."""

NOT_FOUND: Outcome = ("not found", {}, 0)

DATA = st.dictionaries(
    st.sampled_from("abc"),
    st.integers(0, 9) | st.dictionaries(st.sampled_from("xy"), st.integers(0, 9), max_size=2),
    max_size=3,
)
PATCHES = st.dictionaries(
    st.sampled_from("abc"),
    st.none() | st.integers(0, 9) | st.dictionaries(st.sampled_from("xy"), st.none() | st.integers(0, 9)),
    min_size=1,
    max_size=3,
)


@dataclass(frozen=True)
class Merge:
    patch: Data
    version: int | None = None

    def expected(self, state: State) -> tuple[State, Outcome]:
        if state is None:
            return None, NOT_FOUND
        data, version = state
        if self.version not in (None, version):
            return state, ("conflict", {}, version)
        after = (merge_patch(data, self.patch), version + 1)
        return after, ("ok", *after)

    async def run(self, kit: StateKit, owner: Owner, session_id: str) -> Outcome:
        def check(current: int) -> None:
            if self.version not in (None, current):
                raise VersionConflictError(current_version=current)

        try:
            changed = await kit.sessions.mutate(
                owner, session_id, lambda now: merge_patch(now.data, self.patch), check_version=check
            )
        except VersionConflictError as conflict:
            return "conflict", {}, conflict.extra["current_version"]
        return "ok", changed.data, changed.version


@dataclass(frozen=True)
class Replace:
    data: Data

    def expected(self, state: State) -> tuple[State, Outcome]:
        if state is None:
            return None, NOT_FOUND
        after = (self.data, state[1] + 1)
        return after, ("ok", *after)

    async def run(self, kit: StateKit, owner: Owner, session_id: str) -> Outcome:
        changed = await kit.sessions.mutate(owner, session_id, lambda _: self.data)
        return "ok", changed.data, changed.version


@dataclass(frozen=True)
class Delete:
    def expected(self, state: State) -> tuple[State, Outcome]:
        return None, NOT_FOUND if state is None else ("ok", {}, 0)

    async def run(self, kit: StateKit, owner: Owner, session_id: str) -> Outcome:
        await kit.sessions.delete(owner, session_id)
        return "ok", {}, 0


@dataclass(frozen=True)
class Read:
    extend: bool

    def expected(self, state: State) -> tuple[State, Outcome]:
        return state, NOT_FOUND if state is None else ("ok", *state)

    async def run(self, kit: StateKit, owner: Owner, session_id: str) -> Outcome:
        name = hot_name(owner, session_id)
        if self.extend and await kit.redis.client.hexists(keys.hot_copy(name), "due"):
            await kit.redis.client.hset(keys.hot_copy(name), "due", 1)
        found = await kit.hot.read(name, claim=self.extend)
        reading = await kit.sessions.read(owner, session_id, found, extend=self.extend)
        body = orjson.loads(reading.body)
        return "ok", body["data"], body["version"]


Operation = Merge | Replace | Delete | Read
OPERATIONS: st.SearchStrategy[Operation] = st.one_of(
    st.builds(Merge, PATCHES, st.none() | st.integers(1, 4)),
    st.builds(Replace, DATA),
    st.builds(Read, st.booleans()),
    st.just(Delete()),
)


class SessionsMachine(RuleBasedStateMachine):
    """Compares the sessions of one owner with a dictionary."""

    known = Bundle("known")

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.owner = next(world.owners)
        self.model: dict[str, State] = {}

    @rule(target=known, data=DATA, replica=st.integers(0, 1))
    def create(self, data: Data, replica: int) -> Any:
        if len(self.model) >= 3:
            return multiple()
        kit = self.world.kits[replica]
        made = self.world.run(kit.sessions.create(self.owner, "cart", data))
        self.model[made.id] = (data, 1)
        return made.id

    @rule(session_id=known, operation=OPERATIONS, replica=st.integers(0, 1))
    def one_after_another(self, session_id: str, operation: Operation, replica: int) -> None:
        (outcome,) = self.outcomes(session_id, [(operation, replica)])
        self.model[session_id], expected = operation.expected(self.model[session_id])
        assert outcome == expected

    @rule(
        session_id=known,
        pair=st.lists(st.tuples(OPERATIONS, st.integers(0, 1)), min_size=2, max_size=3),
    )
    def at_the_same_time(self, session_id: str, pair: list[tuple[Operation, int]]) -> None:
        outcomes = self.outcomes(session_id, pair)
        after = self.reads(session_id)
        possible = []
        for order in permutations(range(len(pair))):
            state = self.model[session_id]
            expected: dict[int, Outcome] = {}
            for index in order:
                state, expected[index] = pair[index][0].expected(state)
            possible.append((state, [expected[index] for index in range(len(pair))]))
        matching = [state for state, expected in possible if expected == outcomes and after == shown(state)]
        assert matching, f"{pair} from {self.model[session_id]} gave {outcomes}, then {after}"
        self.model[session_id] = matching[0]

    @rule()
    def redis_loses_everything(self) -> None:
        self.world.run(self.world.kits[0].redis.client.flushall())

    @rule(session_id=known)
    def look(self, session_id: str) -> None:
        assert self.reads(session_id) == shown(self.model[session_id])

    @rule(replica=st.integers(0, 1))
    def look_at_the_list(self, replica: int) -> None:
        listed = self.world.run(self.world.kits[replica].sessions.page(self.owner, limit=10))
        alive = {session_id: state for session_id, state in self.model.items() if state is not None}
        assert {session.id: (session.data, session.version) for session in listed} == alive

    def outcomes(self, session_id: str, work: Sequence[tuple[Operation, int]]) -> list[Outcome]:
        async def run(operation: Operation, replica: int) -> Outcome:
            try:
                return await operation.run(self.world.kits[replica], self.owner, session_id)
            except NotFoundError:
                return NOT_FOUND

        async def run_all() -> list[Outcome]:
            return list(await asyncio.gather(*(run(*item) for item in work)))

        return self.world.run(run_all())

    def reads(self, session_id: str) -> Outcome:
        """Read through both replicas, which must agree, from the copy and without."""
        reads = self.outcomes(session_id, [(Read(extend=False), 0)])
        reads += self.outcomes(session_id, [(Read(extend=True), 1)])
        reads += self.outcomes(session_id, [(Read(extend=False), 0)])
        assert reads[0] == reads[1] == reads[2]
        return reads[0]


def shown(state: State) -> Outcome:
    return NOT_FOUND if state is None else ("ok", *state)


@pytest.fixture
def world(settings: Settings) -> Iterator[World]:
    opened = World(settings)
    yield opened
    opened.close()


@pytest.mark.timeout(1200)
def test_any_history_of_sessions_is_one_that_a_dictionary_could_have_had(world: World) -> None:
    machine: Callable[[], RuleBasedStateMachine] = lambda: SessionsMachine(world)  # noqa: E731  # Hypothesis names it
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
