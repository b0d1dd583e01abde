"""Idempotency keys below the edge: both forms on the real store, raced through two kits, with processes that
are killed in between. The numbers are those of the cases in `app.state.idempotency`.
"""

import asyncio
import signal
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from pymongo.errors import DuplicateKeyError

from app.core.settings import Settings
from app.state import idempotency
from app.state.idempotency import LIFE_S, Idempotency
from app.state.keyed import AlreadyDoneError, Answer, Claim, InFlightError, Keyed, KeyReusedError
from app.state.kit import StateKit, open_kit
from app.state.mongo import ClientSession
from app.state.transactions import OutcomeUnknownError, Work
from tests.cluster.counts import full
from tests.cluster.skewed_replica import SkewedClock
from tests.engines import MongoEngine
from tests.state.helpers import helper
from tests.waiting import held_by_one_task, until

FORMS = ("one document", "transaction")
THINGS = "things"


@pytest.fixture(autouse=True)
def things_carry_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """A collection of these tests among those whose documents carry keys; kits make its index."""
    monkeypatch.setattr(idempotency, "IN_DOCUMENTS", (THINGS,))


class Maker:
    """Makes things through one kit, in one of the forms."""

    def __init__(self, kit: StateKit, form: str, *, keys: Idempotency | None = None) -> None:
        self.kit, self.form = kit, form
        self.keys = keys or kit.idempotency

    def claim(self, request: bytes = b"{}", **scope: str) -> Claim:
        whole = {"tenant_id": "ten_1", "user_id": "usr_1", "route": "POST /things", "key": "k", **scope}
        return self.keys.claim(self.keys.scoped(**whole), request)

    async def make(self, name: str, claim: Claim | None, *, unique: str = "") -> str:
        """Insert a thing and return its name. `unique` is under an index of its own."""
        keyed = None if claim is None else Keyed(claim, answer_of)
        document = {"_id": name, **({"unique": unique} if unique else {})}
        if self.form == "one document":
            await self.keys.insert(THINGS, document, keyed, name)
            return name

        async def work(session: ClientSession) -> str:
            await self.kit.mongo.collection(THINGS).insert_one(document, session=session)
            return name

        return await self.keys.run(keyed, work)

    async def made(self) -> list[str]:
        return [row["_id"] async for row in self.kit.mongo.collection(THINGS).find({}).sort("_id", 1)]

    async def replay(self, attempt: Coroutine[Any, Any, str]) -> Answer:
        with pytest.raises(AlreadyDoneError) as done:
            await attempt
        return done.value.answer


def answer_of(name: str) -> Answer:
    return Answer(201, b'{"name":"%b"}' % name.encode(), {"Location": f"/things/{name}"})


@pytest.fixture(params=FORMS)
def maker(kit: StateKit, request: pytest.FixtureRequest) -> Maker:
    return Maker(kit, request.param)


@pytest.fixture
def other(other_kit: StateKit, maker: Maker) -> Maker:
    """The same through a second replica."""
    return Maker(other_kit, maker.form)


async def test_1_same_key_and_body_gets_the_first_answer_and_has_no_effect(
    maker: Maker, other: Maker
) -> None:
    await maker.make("first", maker.claim())
    for each in (maker, other):
        assert await each.replay(each.make("second", each.claim())) == answer_of("first")
    assert await maker.made() == ["first"]


async def test_2_same_key_and_another_body_is_refused_and_has_no_effect(maker: Maker, other: Maker) -> None:
    await maker.make("first", maker.claim(b'{"n":1}'))
    with pytest.raises(KeyReusedError) as refusal:
        await other.make("second", other.claim(b'{"n":2}'))
    assert (refusal.value.status, refusal.value.code) == (422, "idempotency_key_reused")
    assert await maker.made() == ["first"]


@pytest.mark.parametrize("first_commits", [True, False])
async def test_3_a_twin_in_flight_is_waited_for(
    kit: StateKit, other_kit: StateKit, *, first_commits: bool
) -> None:
    first, second = Maker(kit, "transaction"), Maker(other_kit, "transaction")
    inside, leave = asyncio.Event(), asyncio.Event()

    async def slowly(session: ClientSession) -> str:
        await kit.mongo.collection(THINGS).insert_one({"_id": "first"}, session=session)
        inside.set()
        await leave.wait()
        if not first_commits:
            raise ValueError("a rule says no")
        return "first"

    one = asyncio.create_task(kit.idempotency.run(Keyed(first.claim(), answer_of), slowly))
    await inside.wait()
    two = asyncio.create_task(second.make("second", second.claim()))
    await asyncio.sleep(0.2)
    assert not two.done()
    leave.set()
    if first_commits:
        assert await one == "first"
        assert await second.replay(_result_of(two)) == answer_of("first")
        assert await first.made() == ["first"]
    else:
        with pytest.raises(ValueError, match="a rule says no"):
            await one
        assert await two == "second"
        assert await first.made() == ["second"]


async def _result_of(task: asyncio.Task[str]) -> str:
    return await task


async def test_3_a_twin_that_takes_too_long_is_a_409_to_try_again(
    kit: StateKit, other_kit: StateKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "WAIT_S", 0.2)
    first, second = Maker(kit, "transaction"), Maker(other_kit, "transaction")
    inside, leave = asyncio.Event(), asyncio.Event()

    async def slowly(_: ClientSession) -> str:
        inside.set()
        await leave.wait()
        return "first"

    one = asyncio.create_task(kit.idempotency.run(Keyed(first.claim(), answer_of), slowly))
    await inside.wait()
    with pytest.raises(InFlightError) as refusal:
        await second.make("second", second.claim())
    assert (refusal.value.status, refusal.value.code) == (409, "idempotency_in_flight")
    assert refusal.value.headers["Retry-After"] == "1"
    leave.set()
    assert await one == "first"
    assert await second.replay(second.make("second", second.claim())) == answer_of("first")


@pytest.mark.parametrize("after_the_commit", [False, True])
async def test_4_and_5_a_crash_before_the_commit_did_nothing_and_one_after_it_everything(
    kit: StateKit, settings: Settings, *, after_the_commit: bool
) -> None:
    here = Maker(kit, "transaction")
    for n in range(full(20, 2)):
        claim = here.claim(key=f"k{n}")
        name = f"theirs-{n}"
        arguments = (claim.key, claim.fingerprints[0], name)
        async with helper(settings, "keyed_helper", *arguments) as process:
            assert await process.says() == "written"
            if after_the_commit:
                process.go_on()
                assert await process.says() == "committed"
            process.send(signal.SIGKILL)
            if after_the_commit:
                assert await here.replay(here.make(f"ours-{n}", claim)) == answer_of(name)
                assert name in await here.made()
            else:
                assert await here.make(f"ours-{n}", claim) == f"ours-{n}"  # within the time it waits
                assert name not in await here.made()


async def test_6_a_commit_whose_answer_was_lost_is_found_out_by_the_next_one(
    kit: StateKit, mongo_engine: MongoEngine
) -> None:
    here = Maker(kit, "transaction")

    async def work(session: ClientSession) -> str:
        await kit.mongo.collection(THINGS).insert_one({"_id": "first"}, session=session)
        return "first"

    async def commit_into_the_void(work: Work[str]) -> str:
        async def then_freeze(session: ClientSession) -> str:
            made = await work(session)
            mongo_engine.freeze()
            return made

        return await kit.transactions.run(then_freeze)

    with pytest.raises(OutcomeUnknownError):
        await kit.idempotency.run(Keyed(here.claim(), answer_of), work, transaction=commit_into_the_void)
    mongo_engine.thaw()
    await until(lambda: kit.mongo.health.status == "pass")
    try:
        answer = answer_of(await here.make("second", here.claim()))
    except AlreadyDoneError as done:
        answer = done.answer
    assert [answer_of(name) for name in await here.made()] == [answer]


@pytest.mark.parametrize("scope", [{"tenant_id": "ten_2"}, {"user_id": "usr_2"}, {"route": "POST /others"}])
async def test_7_the_same_key_of_another_tenant_user_or_route_is_another_key(
    maker: Maker, scope: dict[str, str]
) -> None:
    await maker.make("first", maker.claim(b"1"))
    await maker.make("second", maker.claim(b"2", **scope))
    assert await maker.made() == ["first", "second"]


async def test_8_what_was_refused_is_not_stored(maker: Maker) -> None:
    await maker.kit.mongo.collection(THINGS).create_index("unique", unique=True, sparse=True)
    await maker.make("taken", None, unique="u")
    for _ in range(2):
        with pytest.raises(DuplicateKeyError):
            await maker.make("first", maker.claim(), unique="u")
    await maker.make("first", maker.claim(), unique="v")
    assert await maker.made() == ["first", "taken"]


async def test_9_of_a_hundred_at_once_over_two_replicas_one_has_the_effect(
    maker: Maker, other: Maker
) -> None:
    async def attempt(n: int) -> str | Answer | None:
        each = (maker, other)[n % 2]
        try:
            return await each.make(f"thing-{n:03}", each.claim())
        except AlreadyDoneError as done:
            return done.answer
        except InFlightError:
            return None

    outcomes = await asyncio.gather(*(attempt(n) for n in range(100)))
    (name,) = await maker.made()
    assert [outcome for outcome in outcomes if isinstance(outcome, str)] == [name]
    answers = [outcome for outcome in outcomes if isinstance(outcome, Answer)]
    assert answers == [answer_of(name)] * len(answers)


async def test_11_an_expired_key_may_be_used_again_and_what_it_made_stays(
    maker: Maker, other: Maker, settings: Settings
) -> None:
    await maker.make("first", maker.claim())
    late = [
        Maker(each.kit, maker.form, keys=_at(each.kit, settings, timedelta(seconds=LIFE_S + 60)))
        for each in (maker, other)
    ]
    early = Maker(maker.kit, maker.form, keys=_at(maker.kit, settings, timedelta(seconds=LIFE_S - 60)))
    assert await early.replay(early.make("second", early.claim())) == answer_of("first")

    async def attempt(n: int) -> str | Answer:
        try:
            return await late[n % 2].make(f"later-{n}", late[n % 2].claim(b"other"))
        except AlreadyDoneError as done:
            return done.answer

    outcomes = await asyncio.gather(*(attempt(n) for n in range(10)))
    (winner,) = [outcome for outcome in outcomes if isinstance(outcome, str)]
    assert all(outcome in (winner, answer_of(winner)) for outcome in outcomes)
    assert await maker.made() == ["first", winner]


async def test_11_expired_keys_are_removed_from_documents_which_stay(
    kit: StateKit, settings: Settings
) -> None:
    here = Maker(kit, "one document")
    for n in range(3):
        await here.make(f"thing-{n}", here.claim(key=f"k{n}"))
    await kit.idempotency.forget_expired(THINGS)
    assert await kit.mongo.collection(THINGS).count_documents({"idempotency": {"$exists": True}}) == 3
    await _at(kit, settings, timedelta(seconds=LIFE_S + 60)).forget_expired(THINGS)
    assert await kit.mongo.collection(THINGS).count_documents({"idempotency": {"$exists": True}}) == 0
    assert len(await here.made()) == 3


def _at(kit: StateKit, settings: Settings, off: timedelta) -> Idempotency:
    return Idempotency(
        mongo=kit.mongo,
        transactions=kit.transactions,
        clock=SkewedClock(off),
        settings=settings,
        metrics=kit.metrics,
    )


async def test_14_a_key_of_the_transaction_form_outlives_what_was_made(kit: StateKit) -> None:
    here = Maker(kit, "transaction")
    await here.make("first", here.claim())
    await kit.mongo.collection(THINGS).delete_one({"_id": "first"})
    assert await here.replay(here.make("second", here.claim())) == answer_of("first")
    assert await here.made() == []


async def test_16_fingerprints_made_before_the_secret_was_rotated_are_known(
    maker: Maker, settings: Settings
) -> None:
    await maker.make("first", maker.claim(b"body"))
    rotated = settings.model_copy(
        update={"jwt_secret": SecretStr("x" * 20 + "new" * 10), "jwt_secret_previous": settings.jwt_secret}
    )
    async with held_by_one_task(open_kit(rotated)) as later:
        await until(lambda: later.mongo.health.status == "pass")
        after = Maker(later, maker.form)
        assert after.claim(b"body").fingerprints[0] != maker.claim(b"body").fingerprints[0]
        assert await after.replay(after.make("second", after.claim(b"body"))) == answer_of("first")
        with pytest.raises(KeyReusedError):
            await after.make("second", after.claim(b"other"))


async def test_without_a_key_nothing_is_kept(maker: Maker) -> None:
    await maker.make("first", None)
    await maker.make("second", None)
    assert await maker.made() == ["first", "second"]
    assert await maker.kit.mongo.collection("idempotency_keys").count_documents({}) == 0


async def test_a_fingerprint_is_no_plain_hash_of_the_body(kit: StateKit, settings: Settings) -> None:
    elsewhere = settings.model_copy(update={"jwt_secret": SecretStr("another" * 6)})
    there = Idempotency(
        mongo=kit.mongo,
        transactions=kit.transactions,
        clock=kit.clock,
        settings=elsewhere,
        metrics=kit.metrics,
    )
    assert set(kit.idempotency.claim("k", b"b").fingerprints).isdisjoint(there.claim("k", b"b").fingerprints)


async def test_the_key_can_be_written_under_a_lock(kit: StateKit) -> None:
    here = Maker(kit, "transaction")

    async def work(session: ClientSession) -> str:
        await kit.mongo.collection(THINGS).insert_one({"_id": "first"}, session=session)
        return "first"

    async with kit.locks.hold("loan:1") as lock:
        await kit.idempotency.run(Keyed(here.claim(), answer_of), work, transaction=lock.write)
        answer = await here.replay(
            kit.idempotency.run(Keyed(here.claim(), answer_of), work, transaction=lock.write)
        )
    assert answer == answer_of("first")
    assert await here.made() == ["first"]


@pytest.mark.parametrize("takes_back", [False, True])
async def test_an_effect_that_goes_on_may_change_its_answer_or_take_itself_back(
    kit: StateKit, *, takes_back: bool
) -> None:
    maker = Maker(kit, "transaction")
    claim = maker.claim()
    await maker.make("first", claim)

    async def go_on(session: ClientSession) -> None:
        if takes_back:
            await kit.idempotency.forget(claim.key, session)
        else:
            await kit.idempotency.revise(claim.key, answer_of("grown"), session)

    async def go_on_and_fail(session: ClientSession) -> None:
        await go_on(session)
        raise KeyReusedError

    with pytest.raises(KeyReusedError):
        await kit.transactions.run(go_on_and_fail)
    assert await maker.replay(maker.make("second", claim)) == answer_of("first")
    await kit.transactions.run(go_on)
    if takes_back:
        assert await maker.make("second", claim) == "second"
    else:
        assert await maker.replay(maker.make("second", claim)) == answer_of("grown")


async def test_a_document_may_be_inserted_together_with_another_or_not_at_all(kit: StateKit) -> None:
    things, others = kit.mongo.collection(THINGS), kit.mongo.collection("others")
    await others.insert_one({"_id": "taken"})

    def together_with(name: str) -> Any:
        async def insert(document: dict[str, Any]) -> None:
            async def work(session: ClientSession) -> None:
                await things.insert_one(document, session=session)
                await others.insert_one({"_id": name}, session=session)

            await kit.transactions.run(work)

        return insert

    keyed = Keyed(Maker(kit, "one document").claim(), answer_of)
    with pytest.raises(DuplicateKeyError):
        await kit.idempotency.insert(THINGS, {"_id": "a"}, keyed, "a", insert=together_with("taken"))
    assert await things.count_documents({}) == 0
    await kit.idempotency.insert(THINGS, {"_id": "a"}, keyed, "a", insert=together_with("free"))
    with pytest.raises(AlreadyDoneError) as done:
        await kit.idempotency.insert(THINGS, {"_id": "b"}, keyed, "b", insert=together_with("freer"))
    assert done.value.answer == answer_of("a")
    assert await others.count_documents({}) == 2
