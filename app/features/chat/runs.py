"""The runs of this process, and those that others left: started, kept, taken over, stopped.

Guarantees
- A run that was started ends, done or failed or stopped, as long as some replica lives: its owner renews its
  lease every RENEW_S, and one whose lease is over (killed, frozen, cut off from MongoDB) is taken over within
  a scan, by whoever reads its stream or scans first. Whoever lost it writes nothing more, neither to
  MongoDB nor to the stream, and stops asking the model.
- The stored answer is what was streamed: a successor fences the stream, reads what was shown, and goes on
  from there. If Redis is away at that moment it waits REDIS_PATIENCE_S, then the run fails (`run_lost`).
- The client that asked may leave: the run does not notice.
- A process that ends on purpose releases its runs, so that others go on at once.

Does not guarantee that a model is asked only once, nor that the tools are called once: they only read.

At most RUNS_MAX a process. A run that was taken over TAKEOVERS_MAX times fails: it may be what kills
replicas. When MongoDB is gone, nothing starts; what runs waits for a while to be stored, then is left to
others. When Redis is gone, runs go on unheard and are stored.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final, TypeVar

from pymongo.errors import PyMongoError

from app.core.errors import CargoFlowError, ForbiddenError, StoreUnavailableError
from app.core.ids import new_id
from app.features.chat.answer_stream import AnswerStream, channel_of, shown
from app.features.chat.documents import Outcome, Run, RunState, Step
from app.features.chat.errors import ChatBusyError, ModelError, ModelTimeoutError, RunLostError
from app.features.chat.models import Model, Said, Usage
from app.features.chat.store import ConversationStore
from app.features.chat.turns import Turn
from app.features.chat.usage import UsageStore
from app.http.problems import problem_of
from app.http.tools import Tool
from app.state.kit import StateKit
from app.state.principals import Credential, Principal
from app.state.realtime import StaleEpochError
from app.state.session_documents import Owner

_log = logging.getLogger(__name__)

T = TypeVar("T")

RUNS_MAX: Final = 256
RUN_MAX_S: Final = 180.0
"""For one owner, from asking the model to the last word."""
RENEW_S: Final = 0.5
SCAN_S: Final = 0.4
"""With the lease (2 s): a run is taken over within 2.6 s of its owner's death."""
TAKEOVERS_MAX: Final = 10
TAKEN_OVER_AT_ONCE: Final = 32
JOURNAL_S: Final = 2.0
REDIS_PATIENCE_S: Final = 10.0
STORE_PATIENCE_S: Final = 20.0
FLUSH_S: Final = 1.0
"""How long the end of a run waits for its last words to get into the stream."""
SWEEP_S: Final = 60.0
STONES_KEPT: Final = timedelta(minutes=5)
TITLE_MAX_CHARACTERS: Final = 60
_POLL_S: Final = 0.25


class _SupersededError(Exception):
    """Somebody else has the run now, or it was deleted."""


class _Local:
    """A run that this process works on."""

    __slots__ = ("is_ending", "is_superseded", "outcome", "run", "steps", "task")

    def __init__(self, run: Run) -> None:
        self.run = run
        self.task: asyncio.Task[None] | None = None
        self.steps: list[Step] = []
        self.outcome: Outcome | None = None
        self.is_ending = False
        self.is_superseded = False


class Runs:
    """See the module. One a replica; `work_forever` must run, and `close` be called at the end."""

    def __init__(
        self,
        kit: StateKit,
        *,
        model: Model,
        tools: Sequence[Tool],
        draining: asyncio.Event,
        tasks: asyncio.TaskGroup,
    ) -> None:
        """While `draining` is set nothing is taken over. Runs are tasks of `tasks`, the lifespan's."""
        self.store = ConversationStore(kit)
        self._kit = kit
        self._model = model
        self._tools = tools
        self._draining = draining
        self._usage = UsageStore(kit)
        self._by = new_id("own")
        self._local: dict[str, _Local] = {}
        self._tasks = tasks

    # -- for requests --------------------------------------------------------------------------------------

    async def start(
        self, caller: Principal, conversation_id: str | None, question: str, *, request_id: str
    ) -> Run:
        """Start the answering of a question, in a new conversation if none is named.

        Raises ChatBusyError, NotFoundError, RunInProgressError, StoreUnavailableError.
        """
        if len(self._local) >= RUNS_MAX:
            raise ChatBusyError
        owner = Owner(caller.tenant_id, caller.user_id)
        if conversation_id is None:
            run = await self.store.start_first(
                owner, question, title=title_of(question), by=self._by, request_id=request_id
            )
        else:
            run = await self.store.start_next(
                owner, conversation_id, question, by=self._by, request_id=request_id
            )
        self._spawn(run, caller)
        return run

    async def wait(self, run: Run) -> Outcome:
        """Return how the run ended, once it has. Raises StoreUnavailableError, NotFoundError if it was
        deleted.
        """
        local = self._local.get(run.id)
        if local is not None and local.task is not None:
            await asyncio.wait({local.task})
            if local.outcome is not None:
                return local.outcome
        while True:
            found = await self.store.find_run(run.owner, run.id)
            if isinstance(found, Outcome):
                return found
            await self.take_over_if_left(found)
            await asyncio.sleep(_POLL_S)

    async def stop(self, owner: Owner, run_id: str) -> Outcome:
        """Stop a run, whoever works on it, and return how it ended; one that is over stays as it is.

        Raises NotFoundError, StoreUnavailableError.
        """
        while True:
            found = await self.store.find_run(owner, run_id)
            if isinstance(found, Outcome):
                return found
            taken = await self.store.take_over(found, by=self._by, stopping=True)
            if taken is not None:
                self._spawn(taken, None)
                return await self.wait(taken)

    async def delete(self, owner: Owner, conversation_id: str) -> None:
        """Delete a conversation, the run it has, and what the stream of that holds.

        Raises NotFoundError, StoreUnavailableError. With Redis gone the stream ends by itself, unreadable
        since nobody finds the run any more.
        """
        run = await self.store.delete(owner, conversation_id)
        if run is not None:
            self._cut(run.id)
            with suppress(StoreUnavailableError, StaleEpochError):
                await self._kit.realtime.discard(channel_of(run), epoch=run.epoch + TAKEOVERS_MAX + 1)

    async def take_over_if_left(self, run: Run) -> None:
        """Take a run over whose lease is over, if nobody else does and there is room."""
        if run.lease_ends_at > self._kit.clock.now():
            return
        if self._draining.is_set() or len(self._local) >= RUNS_MAX:
            return
        taken = await self.store.take_over(run, by=self._by)
        if taken is not None:
            _log.info("run_taken_over", extra={"run_id": run.id, "epoch": taken.epoch})
            self._spawn(taken, None)

    # -- in the background ---------------------------------------------------------------------------------

    async def work_forever(self) -> None:
        """Renew, take over, sweep. Runs in the lifespan's tasks."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._every(RENEW_S, self._renew))
            tasks.create_task(self._every(SCAN_S, self._scan))
            tasks.create_task(self._every(SWEEP_S, self._sweep))

    def close(self) -> None:
        """End what runs here, so that others go on with it."""
        for local in self._local.values():
            if local.task is not None:
                local.task.cancel()

    async def _every(self, interval_s: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(interval_s * random.uniform(0.75, 1))  # noqa: S311  # spreads replicas
            try:
                await work()
            except StoreUnavailableError:
                continue
            except PyMongoError as error:
                _log.error("chat_work_failed", extra={"reason": str(error)})

    async def _renew(self) -> None:
        mine = list(self._local.values())
        if not mine:
            return
        epochs = await self.store.renew(self._by)
        for local in mine:
            if epochs.get(local.run.id) != local.run.epoch and not local.is_ending:
                self._cut(local.run.id)

    async def _scan(self) -> None:
        if self._draining.is_set():
            return
        for conversation in await self.store.left_over(TAKEN_OVER_AT_ONCE):
            if conversation["run"]["state"] == "running":
                await self.take_over_if_left(Run.from_document(conversation))
            else:
                await self.store.settle(conversation)

    async def _sweep(self) -> None:
        await self.store.sweep(self._kit.clock.now() - STONES_KEPT)

    # -- one run -------------------------------------------------------------------------------------------

    def _spawn(self, run: Run, caller: Principal | None) -> None:
        self._cut(run.id)
        local = self._local[run.id] = _Local(run)
        local.task = self._tasks.create_task(self._work(local, caller), name=f"run {run.id}")

    def _cut(self, run_id: str) -> None:
        """End this process's work on a run that is not its own any more."""
        local = self._local.get(run_id)
        if local is not None and local.task is not None:
            local.is_superseded = True
            local.task.cancel()

    async def _work(self, local: _Local, caller: Principal | None) -> None:
        """Bring a run to its end, or leave it to others. Raises nothing."""
        try:
            await self._work_on(local, caller)
        except (StaleEpochError, _SupersededError):
            pass
        except asyncio.CancelledError:
            if not local.is_superseded:
                with suppress(StoreUnavailableError, PyMongoError):
                    await self.store.release(local.run)
        except Exception:  # noqa: BLE001  # its lease ends, and others go on with it
            _log.exception("run_left", extra={"run_id": local.run.id})
        finally:
            if self._local.get(local.run.id) is local:
                del self._local[local.run.id]

    async def _work_on(self, local: _Local, caller: Principal | None) -> None:
        run = local.run
        try:
            out = AnswerStream(self._kit.realtime, run) if run.epoch == 1 else await self._reopen(run)
        except RunLostError as error:
            await self._end(local, "failed", run.text, error)
            return
        is_ours = False
        try:
            async with asyncio.TaskGroup() as tasks:
                side = [tasks.create_task(out.pump()), tasks.create_task(self._journal_forever(run, out))]
                state, failure = await self._answer(local, caller, out)
                await out.flush(FLUSH_S)
                for task in side:
                    task.cancel()
            is_ours = True
        except* (StaleEpochError, _SupersededError):
            _log.info("run_superseded", extra={"run_id": run.id, "epoch": run.epoch})
        if is_ours:
            await self._end(local, state, out.text, failure)
            await out.end()

    async def _reopen(self, run: Run) -> AnswerStream:
        """Return the stream of a run that somebody else had, with all that was shown in it.

        Raises StaleEpochError, RunLostError.
        """
        realtime = self._kit.realtime
        patience_s = 0.0 if run.is_stopping else REDIS_PATIENCE_S
        try:
            found = await _insist(lambda: shown(realtime, run), patience_s)
        except StoreUnavailableError:
            if not run.is_stopping:
                raise RunLostError from None
            return AnswerStream(realtime, run, text=run.text)
        if found.text is not None and found.text.startswith(run.text):
            return AnswerStream(realtime, run, text=found.text, events=found.events)
        out = AnswerStream(realtime, run, text=found.text or "", events=found.events)
        if found.text is not None and run.text.startswith(found.text):
            out.write(run.text.removeprefix(found.text))
        else:
            out.replace(run.text)
        return out

    async def _answer(
        self, local: _Local, caller: Principal | None, out: AnswerStream
    ) -> tuple[RunState, CargoFlowError | None]:
        """Write the answer to `out` and return how the run ends. Raises what says that it is not ours."""
        run = local.run
        if run.is_stopping:
            return "stopped", None
        if run.epoch > TAKEOVERS_MAX:
            return "failed", ModelError("The answer was begun too often without coming to an end.")
        try:
            async with asyncio.timeout(RUN_MAX_S):
                await self._take_turn(local, caller or await self._caller_of(run), out)
        except TimeoutError:
            return "failed", ModelTimeoutError(f"The answer took longer than {RUN_MAX_S:g} s.")
        except (StaleEpochError, _SupersededError):
            raise
        except CargoFlowError as error:
            return "failed", error
        except Exception:  # noqa: BLE001  # the user is told, whatever it was
            _log.exception("run_failed", extra={"run_id": run.id})
            return "failed", ModelError("Something went wrong on our side while the answer was written.")
        return "done", None

    async def _take_turn(self, local: _Local, caller: Principal, out: AnswerStream) -> None:
        run = local.run
        history: list[Said] = []
        if self._model.history_turns and run.turn > 1:
            rows = await self.store.context(run, turns=self._model.history_turns)
            history = [Said(row["role"], row["content"]) for row in rows if row["content"]]

        async def journal(step: Step) -> None:
            if not await _insist(lambda: self.store.journal_step(run, step, text=out.text), STORE_PATIENCE_S):
                raise _SupersededError
            local.steps.append(step)

        turn = Turn(
            kit=self._kit, caller=caller, model=self._model, tools=self._tools, out=out, journal=journal
        )
        try:
            await turn.answer(run.question, history, run.steps)
        finally:
            if turn.usage != Usage(0, 0):
                await self._usage.add(run.owner, turn.usage)

    async def _journal_forever(self, run: Run, out: AnswerStream) -> None:
        """Keep the text in MongoDB every now and then, for the case that Redis loses it."""
        kept = len(out.text)
        while True:
            await asyncio.sleep(JOURNAL_S)
            if len(out.text) > kept:
                kept = len(out.text)
                with suppress(StoreUnavailableError):
                    if not await self.store.journal_text(run, out.text[:kept]):
                        raise _SupersededError

    async def _end(self, local: _Local, state: RunState, text: str, error: CargoFlowError | None) -> None:
        """Store how the run ended. Raises _SupersededError, StoreUnavailableError."""
        local.is_ending = True
        run = local.run
        problem = None if error is None else problem_document(error, run.request_id)
        local.outcome = await _insist(
            lambda: self.store.finish(run, state, text, problem, steps=local.steps), STORE_PATIENCE_S
        )
        if local.outcome is None:
            raise _SupersededError
        self._kit.metrics.chat_run(state)
        if error is not None:
            _log.warning("run_failed", extra={"run_id": run.id, "code": error.code, "detail": error.detail})

    async def _caller_of(self, run: Run) -> Principal:
        """Return whose rights a run has, as of now. Raises ForbiddenError if they have none any more."""
        owner = run.owner
        account = await self._kit.accounts.find(tenant_id=owner.tenant_id, user_id=owner.user_id)
        if account is None or not account.active:
            raise ForbiddenError("This account can't ask questions any more.")
        return Principal(
            tenant_id=owner.tenant_id,
            user_id=owner.user_id,
            email=account.email,
            name=account.name,
            role=account.role,
            tier=account.tier,
            credential=Credential("login", ""),
        )


def title_of(question: str) -> str:
    """Return what a conversation is called: the beginning of its first question."""
    words = " ".join(question.split())
    return words if len(words) <= TITLE_MAX_CHARACTERS else words[: TITLE_MAX_CHARACTERS - 1].rstrip() + "…"


def problem_document(error: CargoFlowError, request_id: str) -> Mapping[str, Any]:
    """Return the problem that tells of an error, for a body or an event."""
    return problem_of(error, {}).document(request_id)


async def _insist(call: Callable[[], Awaitable[T]], patience_s: float) -> T:
    """Make a call again while its store is away, for so long. Raises StoreUnavailableError after that."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + patience_s
    while True:
        try:
            return await call()
        except StoreUnavailableError:
            if loop.time() >= until_s:
                raise
            await asyncio.sleep(_POLL_S)
