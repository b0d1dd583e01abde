"""Bringing one run to its end: the part of `runs` that works on a run which this process owns.

What is guaranteed stands there. In short: text goes to the stream, steps to the journal, the outcome to
MongoDB; whatever says that somebody else has the run by now ends the work without another write.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

from app.core.errors import CargoFlowError, ForbiddenError, StoreUnavailableError
from app.features.chat.answer_stream import AnswerStream, shown
from app.features.chat.documents import Outcome, Run, RunState, Step, messages_of, outcome_of
from app.features.chat.errors import ModelError, ModelTimeoutError, RunLostError
from app.features.chat.models import Model, Said, Usage
from app.features.chat.settling import Settling
from app.features.chat.store import ConversationStore
from app.features.chat.turns import Turn
from app.features.chat.usage import UsageStore
from app.http.problems import problem_of
from app.http.tools import Tool
from app.state.kit import StateKit
from app.state.principals import Credential, Principal
from app.state.realtime import StaleEpochError

_log = logging.getLogger(__name__)

T = TypeVar("T")

RUN_MAX_S: Final = 180.0
"""For one owner, from asking the model to the last word."""
TAKEOVERS_MAX: Final = 10
JOURNAL_S: Final = 2.0
REDIS_PATIENCE_S: Final = 10.0
STORE_PATIENCE_S: Final = 20.0
FLUSH_S: Final = 1.0
"""How long the end of a run waits for its last words to get into the stream."""
_POLL_S: Final = 0.25


class SupersededError(Exception):
    """Somebody else has the run now, or it was deleted."""


class LocalRun:
    """A run that this process works on.

    `steps` are those it has journaled; `outcome` is there once it has stored the end. `is_ending`: whether
    a run that is not found any more is no sign of a successor. `is_superseded`: why `task` was cancelled.
    """

    __slots__ = ("is_ending", "is_superseded", "outcome", "run", "steps", "task")

    def __init__(self, run: Run) -> None:
        self.run = run
        self.task: asyncio.Task[None] | None = None
        self.steps: list[Step] = []
        self.outcome: Outcome | None = None
        self.is_ending = False
        self.is_superseded = False


class RunWork:
    """Works on runs, each a call of `bring_to_end`. One a replica."""

    def __init__(
        self,
        kit: StateKit,
        store: ConversationStore,
        *,
        settling: Settling,
        model: Model,
        tools: Sequence[Tool],
    ) -> None:
        """`model` answers, with the help of `tools`; what ended is offered to `settling`."""
        self._kit = kit
        self._store = store
        self._settling = settling
        self._model = model
        self._tools = tools
        self._usage = UsageStore(kit)

    async def bring_to_end(self, local: LocalRun, caller: Principal | None) -> None:
        """Answer what is not answered yet, as `caller` or else as the account is now, and store the end.

        Returns without an outcome if somebody else has the run by now. Raises StaleEpochError and
        SupersededError for the same, and StoreUnavailableError if the end can't be stored for too long.
        """
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
        except* (StaleEpochError, SupersededError):
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
        self, local: LocalRun, caller: Principal | None, out: AnswerStream
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
        except (StaleEpochError, SupersededError):
            raise
        except CargoFlowError as error:
            return "failed", error
        except Exception:  # noqa: BLE001  # the user is told, whatever it was
            _log.exception("run_failed", extra={"run_id": run.id})
            return "failed", ModelError("Something went wrong on our side while the answer was written.")
        return "done", None

    async def _take_turn(self, local: LocalRun, caller: Principal, out: AnswerStream) -> None:
        run = local.run
        history: list[Said] = []
        if self._model.history_turns and run.turn > 1:
            rows = await self._store.context(run, turns=self._model.history_turns)
            history = [Said(row["role"], row["content"]) for row in rows if row["content"]]

        async def journal(step: Step) -> None:
            if not await _insist(
                lambda: self._store.journal_step(run, step, text=out.text), STORE_PATIENCE_S
            ):
                raise SupersededError
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
                    if not await self._store.journal_text(run, out.text[:kept]):
                        raise SupersededError

    async def _end(self, local: LocalRun, state: RunState, text: str, error: CargoFlowError | None) -> None:
        """Store how the run ended. Raises SupersededError, StoreUnavailableError."""
        local.is_ending = True
        run = local.run
        problem = None if error is None else problem_document(error, run.request_id)
        ended = await _insist(
            lambda: self._store.finish(run, state, text, problem, steps=local.steps), STORE_PATIENCE_S
        )
        if ended is None:
            raise SupersededError
        local.outcome = outcome_of(messages_of(ended)[1])
        await self._settling.offer(ended)
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
