"""Whatever is done to drafts through two replicas, in whatever order or at the same time, a dictionary in
memory would have answered the same.

Hypothesis makes up the histories. Two operations at once must come out as one of the two orders would have.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, multiple, rule, run_state_machine_as_test

from app.core.errors import CargoFlowError
from app.core.merge_patch import merge_patch
from app.core.settings import Settings
from app.features.bookings import drafts
from app.features.bookings.forms import Save
from app.features.bookings.store import BookingStore
from app.http.etags import WriteCondition
from app.state.kit import StateKit
from app.state.principals import Principal
from tests.cluster.counts import full
from tests.features.bookings.callers import new_caller
from tests.features.bookings.shipments import shipment
from tests.state.two_replicas import World

EXAMPLES = full(10_000, 1000)
STEPS = 8

WHOLE = shipment()
Outcome = tuple[Any, ...]


@dataclass(frozen=True)
class State:
    """What a draft is: being filled in, booked (`is_booked`), or gone (no data)."""

    data: Mapping[str, Any] | None
    step: int | None = None
    version: int = 1
    seen: tuple[tuple[str, int], ...] = ()
    is_booked: bool = False

    @property
    def is_whole(self) -> bool:
        return self.data is not None and "equipment" in self.data and "city" in self.data["pickup"]


NOT_FOUND, SUBMITTED, CONFLICT, INVALID = [
    (code,) for code in ("not_found", "draft_submitted", "version_conflict", "validation_failed")
]


def shown(state: State, *, applied: bool = True) -> Outcome:
    return ("draft", state.data, state.step, state.version, applied)


def absent(state: State) -> Outcome | None:
    if state.is_booked:
        return SUBMITTED
    return NOT_FOUND if state.data is None else None


@dataclass(frozen=True)
class DoSave:
    patch: Mapping[str, Any]
    step: int | None
    sender: tuple[str, int] | None
    version: int | None

    def expected(self, state: State) -> tuple[State, Outcome]:
        if refused := absent(state):
            return state, refused
        client, seq = self.sender or (None, None)
        seen = dict(state.seen)
        if client is not None and seen.get(client, -1) >= (seq or 0):
            return state, shown(state, applied=False)
        if self.version not in (None, state.version):
            return state, CONFLICT
        if client is not None:
            seen[client] = seq or 0
        after = replace(
            state,
            data=merge_patch(state.data, self.patch),
            step=state.step if self.step is None else self.step,
            version=state.version + 1,
            seen=tuple(sorted(seen.items())),
        )
        return after, shown(after)

    async def run(self, kit: StateKit, me: Principal, draft_id: str) -> Outcome:
        saved = Save(self.patch, self.step, *(self.sender or (None, None)))
        condition = WriteCondition(None, self.version)
        draft, applied = await drafts.save(kit, me, draft_id, saved, condition)
        return ("draft", draft.form.data, draft.form.step, draft.version, applied)


@dataclass(frozen=True)
class Submit:
    def expected(self, state: State) -> tuple[State, Outcome]:
        if state.data is None:
            return state, NOT_FOUND
        if not state.is_booked and not state.is_whole:
            return state, INVALID
        booked = ("booked", state.data.get("notes"), state.data["pickup"]["city"])
        return replace(state, is_booked=True), booked

    async def run(self, kit: StateKit, me: Principal, draft_id: str) -> Outcome:
        booking = await drafts.submit(kit, me, draft_id)
        assert booking["draft_id"] == draft_id
        return ("booked", booking["notes"], booking["pickup"]["city"])


@dataclass(frozen=True)
class Delete:
    def expected(self, state: State) -> tuple[State, Outcome]:
        refused = absent(state)
        return (state, refused) if refused else (State(None), ("deleted",))

    async def run(self, kit: StateKit, me: Principal, draft_id: str) -> Outcome:
        await drafts.delete(kit, me, draft_id)
        return ("deleted",)


@dataclass(frozen=True)
class Read:
    def expected(self, state: State) -> tuple[State, Outcome]:
        return state, NOT_FOUND if absent(state) else shown(state)

    async def run(self, kit: StateKit, me: Principal, draft_id: str) -> Outcome:
        draft = await drafts.read(kit, me, draft_id)
        version = draft.version - (draft.form.places is not None)  # closing it is a write of its own
        return ("draft", draft.form.data, draft.form.step, version, True)


Operation = DoSave | Submit | Delete | Read
PATCHES = st.fixed_dictionaries(
    {},
    optional={
        "notes": st.none() | st.sampled_from(["a", "b"]),
        "equipment": st.none() | st.sampled_from(["reefer", "flatbed"]),
        "pickup": st.fixed_dictionaries({}, optional={"city": st.none() | st.just("Kiel")}),
    },
)
SAVES = st.builds(
    DoSave,
    patch=PATCHES,
    step=st.none() | st.integers(0, 3),
    sender=st.none() | st.tuples(st.sampled_from(["tab-1", "tab-2"]), st.integers(0, 6)),
    version=st.none() | st.integers(1, 6),
)
OPERATIONS: st.SearchStrategy[Operation] = st.one_of(
    SAVES, SAVES, SAVES, st.just(Submit()), st.just(Read()), st.just(Delete())
)


class DraftsMachine(RuleBasedStateMachine):
    """Compares the drafts of one shipper with a dictionary."""

    known = Bundle("known")

    def __init__(self, world: World, me: Principal) -> None:
        super().__init__()
        self.world = world
        self.me = replace(me, user_id=next(world.owners).user_id)
        self.model: dict[str, State] = {}

    @rule(target=known, replica=st.integers(0, 1), is_whole=st.booleans())
    def create(self, replica: int, is_whole: bool) -> Any:
        if len(self.model) >= 2:
            return multiple()
        data = WHOLE if is_whole else {**WHOLE, "equipment": None}
        made = self.world.run(drafts.create(self.world.kits[replica], self.me, Save(data)))
        self.model[made.id] = State(merge_patch({}, data))
        return made.id

    @rule(draft_id=known, operation=OPERATIONS, replica=st.integers(0, 1))
    def one_after_another(self, draft_id: str, operation: Operation, replica: int) -> None:
        (outcome,) = self.outcomes(draft_id, [(operation, replica)])
        self.model[draft_id], expected = operation.expected(self.model[draft_id])
        assert outcome == expected

    @rule(draft_id=known, pair=st.lists(st.tuples(OPERATIONS, st.integers(0, 1)), min_size=2, max_size=3))
    def at_the_same_time(self, draft_id: str, pair: list[tuple[Operation, int]]) -> None:
        outcomes = self.outcomes(draft_id, pair)
        after = self.reads(draft_id)
        possible = []
        for order in permutations(range(len(pair))):
            state = self.model[draft_id]
            expected: dict[int, Outcome] = {}
            for index in order:
                state, expected[index] = pair[index][0].expected(state)
            possible.append((state, [expected[index] for index in range(len(pair))]))
        matching = [
            state
            for state, expected_ in possible
            if expected_ == outcomes and Read().expected(state)[1] == after
        ]
        assert matching, f"{pair} from {self.model[draft_id]} gave {outcomes}, then {after}"
        self.model[draft_id] = matching[0]

    @rule()
    def redis_loses_everything(self) -> None:
        self.world.run(self.world.kits[0].redis.client.flushall())

    @rule(replica=st.integers(0, 1))
    def look_at_the_bookings(self, replica: int) -> None:
        store = BookingStore(self.world.kits[replica])
        for draft_id, state in self.model.items():
            booking = self.world.run(store.find_by_draft(self.me, draft_id))
            assert (booking is not None) == state.is_booked

    def outcomes(self, draft_id: str, work: Sequence[tuple[Operation, int]]) -> list[Outcome]:
        async def run(operation: Operation, replica: int) -> Outcome:
            try:
                return await operation.run(self.world.kits[replica], self.me, draft_id)
            except CargoFlowError as error:
                return (error.code,)

        async def run_all() -> list[Outcome]:
            return list(await asyncio.gather(*(run(*item) for item in work)))

        return self.world.run(run_all())

    def reads(self, draft_id: str) -> Outcome:
        """Read through both replicas, which must agree."""
        first, second = self.outcomes(draft_id, [(Read(), 0), (Read(), 1)])
        assert first == second
        return first


@pytest.fixture
def world(settings: Settings) -> Iterator[World]:
    opened = World(settings)
    yield opened
    opened.close()


@pytest.mark.timeout(2400)
def test_any_history_of_drafts_is_one_that_a_dictionary_could_have_had(world: World) -> None:
    me = world.run(new_caller(world.kits[0]))
    machine: Callable[[], RuleBasedStateMachine] = lambda: DraftsMachine(world, me)  # noqa: E731  # Hypothesis names it
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
