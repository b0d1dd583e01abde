"""Scores in MongoDB, and what they are reckoned from.

Guarantees
- One score an application: its id is the application's. It is written in the transaction that reads its
  inputs, and only if they differ from those of the score that is there.
- A later score never rests on older inputs: who reckons reads the score that is there first, then the inputs,
  and writes over that very revision. Of two at once one writes, and the other has to read again.
- The tenant is in every query.

Document in `scores`: {_id app_…, tenant_id, scorecard, points, points_max, suggestion, reasons, factors,
fingerprint, revision, computed_at}. `fingerprint` is of the scorecard and its inputs; `revision` counts the
scores of the application. When MongoDB is gone: StoreUnavailableError. Redis is not involved. Bookings and
transfers of the ledger are counted by their own stores.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import asdict
from typing import Final

import orjson
from pymongo.errors import DuplicateKeyError

from app.core.errors import NotFoundError
from app.core.moments import to_the_millisecond
from app.features.bookings.store import BookingStore
from app.features.credit.store import ApplicationStore
from app.features.ledger.store import LedgerStore
from app.features.scans.store import ScanStore
from app.features.scoring.scorecard import SCORECARD, Inputs, score_of
from app.state.kit import StateKit
from app.state.mongo import ClientSession, Document

COLLECTION: Final = "scores"
_COMPLETED: Final = ("delivered", "closed")


class ScoreMovedError(Exception):
    """Somebody else scored the application meanwhile: reckon again."""


class ScoreStore:
    """The scores of all applications. Cheap to make."""

    def __init__(self, kit: StateKit) -> None:
        """Take from the kit what it needs."""
        self._mongo = kit.mongo
        self._clock = kit.clock
        self._rows = kit.mongo.collection(COLLECTION)
        self._applications = ApplicationStore(kit)
        self._scans = ScanStore(kit)
        self._bookings = BookingStore(kit)
        self._ledger = LedgerStore(kit)

    async def get(self, tenant_id: str, application_id: str) -> Document:
        """Return the score of an application. Raises NotFoundError where there is none yet."""
        async with self._mongo.guard("scores.find"):
            found: Document | None = await self._rows.find_one(
                {"_id": application_id, "tenant_id": tenant_id}
            )
        if found is None:
            raise NotFoundError
        return found

    async def reckon(self, tenant_id: str, application_id: str, session: ClientSession) -> Document:
        """Score an application by what is known of it in this transaction, and return the score.

        Raises NotFoundError if there is no such application, ScoreMovedError.
        """
        mine = {"_id": application_id, "tenant_id": tenant_id}
        before: Document | None = await self._rows.find_one(mine, session=session)
        application = await self._applications.get({"tenant_id": tenant_id}, application_id, session=session)
        inputs = await self._inputs(application, session)
        fingerprint = _fingerprint(inputs)
        if before is not None and before["fingerprint"] == fingerprint:
            return before
        score = {
            **score_of(inputs).document(),
            "fingerprint": fingerprint,
            "revision": 1 if before is None else before["revision"] + 1,
            "computed_at": to_the_millisecond(self._clock.now()),
        }
        if not await self._write(mine, before, score, session):
            raise ScoreMovedError
        return {**mine, **score}

    async def _write(
        self, mine: Document, before: Document | None, score: Document, session: ClientSession
    ) -> bool:
        """Put a score in the place of the one before, and say whether that was still there."""
        if before is not None:
            over = {**mine, "revision": before["revision"]}
            result = await self._rows.update_one(over, {"$set": score}, session=session)
            return bool(result.modified_count)
        try:
            await self._rows.insert_one({**mine, **score}, session=session)
        except DuplicateKeyError:
            return False
        return True

    async def _inputs(self, application: Document, session: ClientSession) -> Inputs:
        tenant_id, user_id = application["tenant_id"], application["user_id"]
        documents = await self._scans.of_application(tenant_id, application["_id"], session=session)
        read = [document for document in documents if document["state"] == "read"]
        bookings = await self._bookings.count_by_status(tenant_id, user_id, session)
        transfers = await self._ledger.count_by_kind(tenant_id, user_id, session)
        asked, revenue = application["requested_amount"], application["annual_revenue"]
        comparable = revenue is not None and revenue["currency"] == asked["currency"]
        return Inputs(
            requested_minor=asked["amount_minor"],
            annual_revenue_minor=revenue["amount_minor"] if comparable else None,
            terms_days=application["terms_days"],
            years_trading=application["years_trading"],
            documents_read=sum(bool(document["fields"]) for document in read),
            documents_failed=sum(document["state"] == "failed" for document in documents),
            confirmed_fields=_sorted(name for document in read for name in document["confirmed"]),
            mismatched_fields=_sorted(
                mismatch["field"] for document in read for mismatch in document["mismatches"]
            ),
            bookings_total=sum(bookings.values()),
            bookings_completed=sum(bookings.get(status, 0) for status in _COMPLETED),
            bookings_cancelled=bookings.get("cancelled", 0),
            credit_delivered=transfers.get("post", 0),
            credit_voided=transfers.get("void", 0),
            loans_paid_out=transfers.get("payout", 0),
        )


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(names)))


def _fingerprint(inputs: Inputs) -> str:
    told = orjson.dumps([SCORECARD, asdict(inputs)], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(told).hexdigest()
