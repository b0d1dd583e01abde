"""Idempotency keys: a request that is sent twice has one effect and one answer, which lies beside the effect.

Two forms, and which one is a matter of what the effect is:

    await kit.idempotency.insert("bookings", document, keyed, booking)           # one document
    made = await kit.idempotency.run(keyed, work)                                # a transaction
    done = await kit.idempotency.write(keyed, write, session)                    # the same around one write

- *One document*: the effect is one insert, and the document carries the key (unique index), the fingerprint
  and the first answer. Inserting it decides. For what is never deleted: with the document the key would go.
- *Transaction*: a row in `idempotency_keys` is inserted first and in the transaction of the effect, whatever
  that consists of; `transaction=lock.write` puts it into a write under a lock.

An effect that goes on after its first commit (a payment whose gateway has yet to answer) may `revise` the
answer in a later one, or `forget` the key if it takes itself back.

Nothing is claimed beforehand. Either the effect and its answer are committed together, or there is neither,
so a replica that dies leaves nothing to free, and only what succeeded is ever replayed.

Cases, each a test of this name in tests/state/test_idempotency.py or tests/features/test_keyed_posts.py
 1. Same key and body, again: the first status, body and headers, `Idempotent-Replayed: true`; no effect.
 2. Same key, other body (or other path or query): 422 `idempotency_key_reused`; no effect.
 3. The first one in flight: its twin waits up to WAIT_S and replays, or gets 409 `idempotency_in_flight`.
 4. Crash before the commit: nothing happened; the next one does it, at the latest when the dead one's
    transaction has been ended (`processes`), which is within WAIT_S.
 5. Crash after the commit, before the answer: the next one replays.
 6. Commit whose answer was lost: 503, and the next one finds out.
 7. Another tenant, user or route with the same key: another key.
 8. The first one refused (4xx) or failed (5xx): nothing is stored, the next one is a first one.
 9. Two replicas at once: one does it, the other replays. If it sees the effect of the first as a reason to
    refuse, it replays all the same.
10. A replay costs no rate limit, and works when the limit is used up. What is no replay is refused then.
    Twins in flight count once in what their route allows.
11. Key expired, LIFE_S after the first: it may be used again, also before anything tidied it up.
12. Redis gone or wiped: no difference, but that limits are counted as `rate_limits` says.
13. MongoDB gone: 503, since nobody can say whether it is a replay.
14. What was made has been changed or deleted since: the replay still shows the first answer. Where the
    answer names what was made (`KeyedCall.made_or_answer`), the replay shows that as it is by then.
15. Malformed key (not 1 to 255 visible ASCII characters, or two of them): 422; no effect.
16. The server's secret rotated: fingerprints made with the previous one are still known.

Does not guarantee a replay of what is refused on the way in: without a valid credential or role, or with a
body that the route does not take any more, it is refused like any request.

Fingerprints are keyed with a secret derived from the server's: bodies may hold passwords, and a plain hash
could be guessed. Dates come from a clock that follows MongoDB's; expiry is checked on every read.

Documents: `idempotency_keys` {_id, fingerprint, status, body, headers, expires_at}, removed by a TTL index;
in a collection of IN_DOCUMENTS `idempotency: {key, fingerprint, status, body, headers, expires_at}`, removed
by `forget_expired`. Cost: one read by index, and one document: nothing more; a transaction: two statements.
Redis is not involved. Source: draft-ietf-httpapi-idempotency-key-header; numbered cases as in Zulip's.
"""

import asyncio
import hashlib
import hmac
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final, TypeVar

import orjson
from pymongo.errors import DuplicateKeyError, PyMongoError

from app.core.clock import Clock
from app.core.errors import StoreUnavailableError
from app.core.key_derivation import derive_keys
from app.core.metrics import Metrics
from app.core.settings import Settings
from app.state.keyed import (
    LIFE_S,
    AlreadyDoneError,
    Answer,
    Claim,
    InFlightError,
    Keyed,
    KeyReusedError,
    Stored,
)
from app.state.mongo import ClientSession, Document, MongoStore
from app.state.transactions import Transactions, Work, is_transient

_log = logging.getLogger(__name__)

WAIT_S = 3.0
TIDY_S = 3600.0
KEYS: Final = "idempotency_keys"
IN_DOCUMENTS: Final = ("applications", "bookings", "users")
"""Collections whose documents carry the key of the request that made them."""
FIELD: Final = "idempotency"
_FIRST_PAUSE_S = 0.01
_LONGEST_PAUSE_S = 0.25
_FORGOTTEN_AT_ONCE = 100

T = TypeVar("T")


async def ensure_indexes(mongo: MongoStore) -> None:
    """Create what the guarantees rest on. Safe while serving, and twice.

    Sparse, not partial: the local cluster's engine does not read by a partial index (63 ms for a look-up
    among 2,000 documents, against 1).
    """
    await mongo.collection(KEYS).create_index("expires_at", expireAfterSeconds=0, name="tidy_up_expired")
    for name in IN_DOCUMENTS:
        rows = mongo.collection(name)
        for member, unique in (("key", True), ("expires_at", False)):
            await rows.create_index(f"{FIELD}.{member}", unique=unique, sparse=True, name=f"{FIELD}_{member}")


class Idempotency:
    """Finds and stores the answers of keyed requests. One a process."""

    def __init__(
        self,
        *,
        mongo: MongoStore,
        transactions: Transactions,
        clock: Clock,
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        """`clock` must be one that follows MongoDB's, see `store_clock`."""
        self._mongo = mongo
        self._transactions = transactions
        self._clock = clock
        self._metrics = metrics
        self._secrets = derive_keys(settings, "idempotency")
        self._rows = mongo.collection(KEYS)

    @staticmethod
    def scoped(*, tenant_id: str, user_id: str, route: str, key: str) -> str:
        """Return the name under which a key is stored: whose, and on which route (its template)."""
        return hashlib.sha256(orjson.dumps([tenant_id, user_id, route, key])).hexdigest()

    def claim(self, key: str, request: bytes) -> Claim:
        """Return the claim of a scoped key; `request` is what the request asks for, in canonical form."""
        return Claim(key, tuple(hmac.new(secret, request, "sha256").hexdigest() for secret in self._secrets))

    async def find(self, key: str, *, within: str = KEYS) -> Stored | None:
        """Return what is known of a scoped key that was used less than LIFE_S ago.

        `within` is the collection whose documents carry it. Raises StoreUnavailableError.
        """
        wanted = {"_id": key} if within == KEYS else {f"{FIELD}.key": key}
        async with self._mongo.guard("idempotency.find"):
            found = await self._mongo.collection(within).find_one(
                wanted, None if within == KEYS else {FIELD: 1}
            )
        if found is None:
            return None
        stored = Stored.from_entry(found if within == KEYS else found[FIELD])
        return stored if stored.expires_at > self._clock.now() else None

    def answer_to(self, stored: Stored, claim: Claim) -> Answer:
        """Return the first answer. Raises KeyReusedError if `claim` asks for something else."""
        if any(hmac.compare_digest(stored.fingerprint, known) for known in claim.fingerprints):
            return stored.answer
        self._metrics.idempotent("reused")
        raise KeyReusedError

    async def insert(
        self,
        within: str,
        document: Document,
        keyed: Keyed[T] | None,
        made: T,
        *,
        insert: Callable[[Document], Awaitable[None]] | None = None,
    ) -> None:
        """Insert the document that is the whole effect of a request, with the request's key if it has one.

        `within`: one of IN_DOCUMENTS. `insert` does it where something else must be there with it or not at
        all: in a transaction, and it raises DuplicateKeyError as the insert itself does. Raises
        AlreadyDoneError, KeyReusedError, what `insert` raises, and DuplicateKeyError of any other index,
        which then is not the work of a twin.
        """
        if keyed is not None:
            entry = {"key": keyed.claim.key, **self._entry(keyed.claim, keyed.answer_of(made))}
            document = {**document, FIELD: entry}
        while True:
            try:
                await (insert(document) if insert else self._insert(within, document))
            except DuplicateKeyError as error:
                if keyed is None:
                    raise
                await self._refuse_twin(keyed.claim, within)
                if f"{FIELD}.key" not in (error.details or {}).get("keyPattern", {}):
                    raise
                await self._free_expired(keyed.claim.key, within)  # or else its holder has just gone
            else:
                return

    async def run(
        self,
        keyed: Keyed[T] | None,
        work: Work[T],
        *,
        transaction: Callable[[Work[T]], Awaitable[T]] | None = None,
    ) -> T:
        """Run `work` in a transaction together with the request's key if it has one.

        `transaction` runs it, `Transactions.run` unless given. Raises AlreadyDoneError, KeyReusedError,
        InFlightError, and what `work` and `transaction` raise.
        """
        run = transaction or self._transactions.run
        if keyed is None:
            return await run(work)
        gives_up_s = self._clock.monotonic_s() + WAIT_S
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return await run(lambda session: self._run_keyed(keyed, work, session))
            except _KeyTakenError:
                await self._refuse_twin(keyed.claim, KEYS)
                await self._free_expired(keyed.claim.key, KEYS)
            except _KeyContendedError:
                await self._refuse_twin(keyed.claim, KEYS)
                if self._clock.monotonic_s() >= gives_up_s:
                    self._metrics.idempotent("in_flight")
                    raise InFlightError from None
                await asyncio.sleep(random.uniform(0, pause_s))  # noqa: S311  # spreads contenders
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    async def write(
        self, keyed: Keyed[T] | None, write: Callable[[ClientSession], Awaitable[bool]], made: T
    ) -> bool:
        """Do one write that says whether it happened, in a transaction with the request's key if it has one.

        Without a key there is no transaction, and `write` gets None for a session. Raises as `run` does.
        """
        if keyed is None:
            return await write(None)

        async def work(session: ClientSession) -> T:
            if not await write(session):
                raise _NotWrittenError
            return made

        with suppress(_NotWrittenError):
            await self.run(keyed, work)
            return True
        return False

    async def revise(self, key: str, answer: Answer, session: ClientSession) -> None:
        """Replace the answer that is kept under a scoped key, in a transaction; nothing if it has expired.

        For an effect that goes on after its first commit: who repeats the request wants to know how it ended.
        """
        changes = {"status": answer.status, "body": answer.body, "headers": dict(answer.headers)}
        await self._rows.update_one({"_id": key}, {"$set": changes}, session=session)

    async def forget(self, key: str, session: ClientSession) -> None:
        """Let go of a scoped key in a transaction that takes its effect back: the next one is a first one."""
        await self._rows.delete_one({"_id": key}, session=session)

    async def forget_expired_forever(self) -> None:
        """Every TIDY_S, remove expired keys from the documents that carry them. Runs in a worker's tasks."""
        while True:
            await asyncio.sleep(TIDY_S * random.uniform(0.75, 1.25))  # noqa: S311  # spreads the workers
            try:
                for name in IN_DOCUMENTS:
                    await self.forget_expired(name)
            except StoreUnavailableError:
                continue
            except PyMongoError as error:
                _log.error("idempotency_keys_not_forgotten", extra={"reason": str(error)})

    async def forget_expired(self, within: str) -> None:
        """Remove expired keys, with the answers, from the documents of a collection; these stay."""
        rows = self._mongo.collection(within)
        over = {f"{FIELD}.expires_at": {"$lte": self._clock.now()}}
        while True:
            async with self._mongo.guard("idempotency.find_expired"):
                ids = [row["_id"] async for row in rows.find(over, {"_id": 1}).limit(_FORGOTTEN_AT_ONCE)]
            if not ids:
                return
            async with self._mongo.guard("idempotency.forget"):
                await rows.update_many({"_id": {"$in": ids}, **over}, {"$unset": {FIELD: ""}})

    async def _insert(self, within: str, document: Document) -> None:
        async with self._mongo.guard(f"{within}.insert"):
            await self._mongo.collection(within).insert_one(document)

    async def _run_keyed(self, keyed: Keyed[T], work: Work[T], session: ClientSession) -> T:
        """Insert the key first: a twin that is done, or at it, is met before its effect is."""
        try:
            await self._rows.insert_one({"_id": keyed.claim.key}, session=session)
        except DuplicateKeyError as error:
            raise _KeyTakenError from error
        except PyMongoError as error:
            if is_transient(error):
                raise _KeyContendedError from error
            raise
        made = await work(session)
        entry = self._entry(keyed.claim, keyed.answer_of(made))
        await self._rows.update_one({"_id": keyed.claim.key}, {"$set": entry}, session=session)
        return made

    async def _refuse_twin(self, claim: Claim, within: str) -> None:
        stored = await self.find(claim.key, within=within)
        if stored is not None:
            raise AlreadyDoneError(self.answer_to(stored, claim))

    async def _free_expired(self, key: str, within: str) -> None:
        """Let go of a key whose life is over; one that was taken anew in between is not."""
        rows = self._mongo.collection(within)
        over = {"$lte": self._clock.now()}
        async with self._mongo.guard("idempotency.free"):
            if within == KEYS:
                await rows.delete_one({"_id": key, "expires_at": over})
            else:
                wanted = {f"{FIELD}.key": key, f"{FIELD}.expires_at": over}
                await rows.update_one(wanted, {"$unset": {FIELD: ""}})

    def _entry(self, claim: Claim, answer: Answer) -> dict[str, Any]:
        return {
            "fingerprint": claim.fingerprints[0],
            "status": answer.status,
            "body": answer.body,
            "headers": dict(answer.headers),
            "expires_at": self._clock.now() + timedelta(seconds=LIFE_S),
        }


class _NotWrittenError(Exception):
    """A write in a transaction did not happen, so the transaction shall not either."""


class _KeyTakenError(Exception):
    """A row with this key is committed."""


class _KeyContendedError(Exception):
    """A transaction under way has inserted a row with this key."""
