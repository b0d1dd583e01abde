"""Mails that are to be sent: a row is the intent, a worker delivers it.

Guarantees
- A mail whose request was answered is delivered though every process dies, as long as a worker lives again.
- Rows are claimed under a lease on MongoDB's clock by compare-and-set on `attempts`; what a worker that
  lost its lease has to report is ignored.
- Tried ATTEMPTS_MAX times, with exponential backoff; then given up, with the last error kept.

Does not guarantee that a mail arrives only once: a worker killed after the server took the mail and before
it was recorded lets it be sent again, with the same Message-ID.

A row holds no secret: links are made when the mail is. Whether an address is anybody's is looked up then,
too, so that asking takes as long for an unknown one.

Document in `mails`: {_id mail_…, kind, to, state: pending|delivered|failed, attempts, due_at, error?,
created_at, expires_at}. TTL index on `expires_at`. When MongoDB is gone: StoreUnavailableError. Redis is
not involved.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from app.core.clock import Clock
from app.core.ids import new_id
from app.core.moments import to_the_millisecond
from app.state.mongo import Document, MongoStore, from_now, literal

MailKind = Literal["password_reset"]

LEASE_S = 60
"""How long one attempt may take; well above the SMTP timeout."""
ATTEMPTS_MAX = 8
BACKOFF_S = 5
"""Before the second attempt; doubles with each: the eighth comes after about ten minutes."""
KEPT_DAYS = 7
_ERROR_MAX_CHARACTERS = 300
_CLOCK_SLACK = timedelta(seconds=1)
"""A new row is due at once, though the inserting replica may think it is later than MongoDB does."""


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail that this worker may try to deliver until its lease is over."""

    id: str
    kind: MailKind
    to: str
    attempt: int


async def ensure_indexes(mongo: MongoStore) -> None:
    """Create what the queries below need. Safe while serving, and twice."""
    mails = mongo.collection("mails")
    await mails.create_index([("state", 1), ("due_at", 1)])
    await mails.create_index("expires_at", expireAfterSeconds=0)


class Outbox:
    """Adds rows, hands them out, records what became of them."""

    def __init__(self, mongo: MongoStore, clock: Clock) -> None:
        """`clock` dates what is inserted."""
        self._mongo = mongo
        self._clock = clock
        self._mails = mongo.collection("mails")

    async def add(self, *, kind: MailKind, to: str) -> None:
        """Have a mail sent to this address, soon."""
        now = to_the_millisecond(self._clock.now())
        async with self._mongo.guard("mails.insert"):
            await self._mails.insert_one(
                {
                    "_id": new_id("mail"),
                    "kind": kind,
                    "to": to,
                    "state": "pending",
                    "attempts": 0,
                    "due_at": now - _CLOCK_SLACK,
                    "created_at": now,
                    "expires_at": now + timedelta(days=KEPT_DAYS),
                }
            )

    async def claim(self) -> Mail | None:
        """Return a mail that is due and nobody else's for LEASE_S, or None if there is none."""
        due = {"state": "pending", "$expr": {"$lte": [{"$toLong": "$due_at"}, {"$toLong": "$$NOW"}]}}
        while True:
            async with self._mongo.guard("mails.find_due"):
                row = await self._mails.find_one(due, sort=[("due_at", 1)])
            if row is None:
                return None
            found = {"_id": row["_id"], "attempts": row["attempts"], **due}
            if row["attempts"] >= ATTEMPTS_MAX:
                error = "every attempt ended before it could say how"
                await self._update(found, {"state": "failed", "error": error})
                continue
            attempt = row["attempts"] + 1
            if await self._update(found, {"attempts": attempt, "due_at": from_now(LEASE_S * 1000)}):
                return Mail(row["_id"], row["kind"], row["to"], attempt)

    async def delivered(self, mail: Mail) -> None:
        """Record that the mail server took it."""
        await self._settle(mail, {"state": "delivered"})

    async def discard(self, mail: Mail) -> None:
        """Forget a mail that is for nobody."""
        async with self._mongo.guard("mails.discard"):
            await self._mails.delete_one({"_id": mail.id, "attempts": mail.attempt})

    async def failed(self, mail: Mail, reason: str) -> None:
        """Have it tried again later, or give up."""
        error = {"error": literal(reason[:_ERROR_MAX_CHARACTERS])}
        if mail.attempt >= ATTEMPTS_MAX:
            await self._settle(mail, {"state": "failed", **error})
        else:
            delay_s = BACKOFF_S * 2 ** (mail.attempt - 1)
            await self._settle(mail, {"due_at": from_now(delay_s * 1000), **error})

    async def _settle(self, mail: Mail, outcome: Document) -> None:
        await self._update({"_id": mail.id, "attempts": mail.attempt, "state": "pending"}, outcome)

    async def _update(self, wanted: Document, changes: Document) -> bool:
        async with self._mongo.guard("mails.update"):
            result = await self._mails.update_one(wanted, [{"$set": changes}])
        return result.matched_count == 1
