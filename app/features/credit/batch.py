"""One decision about up to a hundred applications, each checked by its own version.

Guarantees
- An application of the batch is decided whole or not at all, as if it had been sent alone: one update, with
  the version in its filter and the event in it. The batch is not one transaction: what can be decided is, and
  the answer says of each what became of it.
- The answer is read from what is stored, not guessed: an application is `updated` if the event of this batch
  is in its history. If the process dies in between, or the answer is lost, what was decided stays decided.
- With an Idempotency-Key the same request may be sent again, also when the first one died half way: an
  event's id is derived from the key, so what was decided is found to be, the rest is decided now, and the
  answer is what the first one would have said. Once one has been given, it is stored and given again.

Does not guarantee the latter without a key: sent again, what went through the first time is a `conflict`
where its version was named, and otherwise whatever the rules say of it now. Nor that a key that was forgotten
after a day adds the same note to the same application once more: the histories remember longer.

Cost: a read of all, one bulk write; if others were quicker somewhere, a second read. What follows from an
approval is left to a worker, which finds it in the outbox within seconds. A hundred at once take 6 ms of a
replica's CPU, against 1.6 to 2.0 for a single decision, and 200 ms on the local engine (measured there).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson

from app.core.errors import InvalidTransitionError
from app.core.ids import derived_id, new_id
from app.core.moments import to_the_millisecond
from app.features.credit.documents import actor_of, new_event
from app.features.credit.errors import HistoryFullError
from app.features.credit.schemas import BatchOutcome, BatchUpdate
from app.features.credit.service import decided
from app.features.credit.store import ApplicationStore, Change, scope_of
from app.state.documents import Scope
from app.state.keyed import Keyed
from app.state.kit import StateKit
from app.state.mongo import ClientSession, Document
from app.state.principals import Principal


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one application. `version`: after the update, else the current one, None without one."""

    id: str
    result: BatchOutcome
    version: int | None


async def update(
    kit: StateKit, caller: Principal, batch: BatchUpdate, keyed: Keyed[list[Result]] | None = None
) -> list[Result]:
    """Decide what can be decided and return what became of each, in the order of the batch.

    Raises StoreUnavailableError, with some decided and others not; with a key what `Idempotency.run` raises.
    """
    store, scope = ApplicationStore(kit), scope_of(caller)
    found = await store.find_many(scope, batch.application_ids)
    event = new_event(batch.status, actor_of(caller), to_the_millisecond(kit.clock.now()), note=batch.note)
    event_ids = {each: _event_id(each, event, keyed) for each in found}
    results = {each: Result(each, "not_found", None) for each in batch.application_ids}
    done = {} if keyed is None else await _done_before(store, scope, event_ids)
    changes = []
    for application_id, application in found.items():
        if application_id in done:
            continue
        planned = _planned(application, batch, {**event, "id": event_ids[application_id]})
        if isinstance(planned, Change):
            changes.append((application, planned))
        else:
            results[application_id] = planned
    results |= done | await _write(store, scope, changes)
    ordered = [results[each] for each in batch.application_ids]

    async def remember(_: ClientSession) -> list[Result]:
        return ordered

    return ordered if keyed is None else await kit.idempotency.run(keyed, remember)


def _planned(application: Document, batch: BatchUpdate, event: Document) -> Change | Result:
    """Return what the decision changes, or why it changes nothing."""
    application_id, current = application["_id"], application["version"]
    if (batch.versions or {}).get(application_id, current) != current:
        return Result(application_id, "conflict", current)
    try:
        return decided(application, event)
    except (InvalidTransitionError, HistoryFullError):
        return Result(application_id, "invalid_transition", current)


async def _write(
    store: ApplicationStore, scope: Scope, changes: Sequence[tuple[Document, Change]]
) -> dict[str, Result]:
    if not changes or await store.change_many(scope, changes):
        return {row["_id"]: Result(row["_id"], "updated", row["version"] + 1) for row, _ in changes}
    event_ids = {row["_id"]: change.event["id"] for row, change in changes}
    return {
        each: Result(each, "conflict", current) if made is None else Result(each, "updated", made)
        for each, (current, made) in (await store.find_made(scope, event_ids)).items()
    }


async def _done_before(
    store: ApplicationStore, scope: Scope, event_ids: Mapping[str, str]
) -> dict[str, Result]:
    """Return those that a request with the same key, which died or is under way, has decided already."""
    found = await store.find_made(scope, event_ids)
    return {each: Result(each, "updated", made) for each, (_, made) in found.items() if made is not None}


def _event_id(application_id: str, event: Document, keyed: Keyed[list[Result]] | None) -> str:
    """Return the id of the event in this application's history: the same whenever its key is sent again."""
    if keyed is None:
        return new_id("evt")
    decision = [keyed.claim.key, application_id, event["status"], event["note"]]
    return derived_id("evt", orjson.dumps(decision).decode())
