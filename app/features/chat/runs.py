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
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Final

from pymongo.errors import PyMongoError

from app.core.errors import StoreUnavailableError
from app.core.ids import new_id
from app.features.chat.answer_stream import channel_of
from app.features.chat.documents import Outcome, Run
from app.features.chat.errors import ChatBusyError
from app.features.chat.models import Model
from app.features.chat.run_work import TAKEOVERS_MAX, LocalRun, RunWork, SupersededError
from app.features.chat.settling import Settling
from app.features.chat.store import ConversationStore
from app.http.tools import Tool
from app.state.keyed import Keyed
from app.state.kit import StateKit
from app.state.principals import Principal
from app.state.realtime import StaleEpochError
from app.state.session_documents import Owner

_log = logging.getLogger(__name__)

RUNS_MAX: Final = 256
RENEW_S: Final = 0.5
SCAN_S: Final = 0.4
"""With the lease (2 s): a run is taken over within 2.6 s of its owner's death."""
TAKEN_OVER_AT_ONCE: Final = 32
SETTLE_S: Final = 5.0
SWEEP_S: Final = 60.0
STONES_KEPT: Final = timedelta(minutes=5)
TITLE_MAX_CHARACTERS: Final = 60
_POLL_S: Final = 0.25


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
        self._settling = Settling(self.store)
        self._work = RunWork(kit, self.store, settling=self._settling, model=model, tools=tools)
        self._draining = draining
        self._by = new_id("own")
        self._local: dict[str, LocalRun] = {}
        self._tasks = tasks

    # -- for requests --------------------------------------------------------------------------------------

    async def start(
        self,
        caller: Principal,
        conversation_id: str | None,
        question: str,
        *,
        request_id: str,
        keyed: Keyed[Run] | None = None,
    ) -> Run:
        """Start the answering of a question, in a new conversation if none is named.

        A process that dies right after the commit leaves a run like any other: it is taken over, and a repeat
        of the request finds it by its key.

        Raises ChatBusyError, NotFoundError, RunInProgressError, StoreUnavailableError, and with a key what
        `Idempotency.run` raises.
        """
        if len(self._local) >= RUNS_MAX:
            raise ChatBusyError
        owner = Owner(caller.tenant_id, caller.user_id)
        if conversation_id is None:
            run = await self.store.start_first(
                owner, question, title=title_of(question), by=self._by, request_id=request_id, keyed=keyed
            )
        else:
            run = await self.store.start_next(
                owner, conversation_id, question, by=self._by, request_id=request_id, keyed=keyed
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
        """Renew, take over, settle, sweep. Runs in the lifespan's tasks."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._settling.work_forever())
            tasks.create_task(self._every(RENEW_S, self._renew))
            tasks.create_task(self._every(SCAN_S, self._scan))
            tasks.create_task(self._every(SETTLE_S, self._settle_left))
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
            await self.take_over_if_left(Run.from_document(conversation))

    async def _settle_left(self) -> None:
        if self._draining.is_set():
            return
        for conversation in await self.store.left_unsettled(TAKEN_OVER_AT_ONCE):
            await self._settling.offer(conversation)

    async def _sweep(self) -> None:
        await self.store.sweep(self._kit.clock.now() - STONES_KEPT)

    # -- one run -------------------------------------------------------------------------------------------

    def _spawn(self, run: Run, caller: Principal | None) -> None:
        self._cut(run.id)
        local = self._local[run.id] = LocalRun(run)
        local.task = self._tasks.create_task(self._keep_at(local, caller), name=f"run {run.id}")

    def _cut(self, run_id: str) -> None:
        """End this process's work on a run that is not its own any more."""
        local = self._local.get(run_id)
        if local is not None and local.task is not None:
            local.is_superseded = True
            local.task.cancel()

    async def _keep_at(self, local: LocalRun, caller: Principal | None) -> None:
        """Bring a run to its end, or leave it to others. Raises nothing."""
        try:
            await self._work.bring_to_end(local, caller)
        except (StaleEpochError, SupersededError):
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


def title_of(question: str) -> str:
    """Return what a conversation is called: the beginning of its first question."""
    words = " ".join(question.split())
    return words if len(words) <= TITLE_MAX_CHARACTERS else words[: TITLE_MAX_CHARACTERS - 1].rstrip() + "…"
