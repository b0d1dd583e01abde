"""The applications that the scenarios decide on: in review, and as old as that makes them."""

from datetime import datetime

from app.features.credit.documents import actor_of, new_application, new_event
from app.features.credit.schemas import NewApplication
from app.features.credit.store import COLLECTION
from app.state.mongo import Document
from app.state.principals import Credential, Principal
from bench.scenario import World

VERSION = 2
"""What they are at."""
_AT_ONCE = 100
_FORM = NewApplication.model_validate(
    {
        "company_name": "Marek Maschinenbau GmbH",
        "requested_amount": {"amount_minor": 5000000, "currency": "EUR"},
        "terms_days": 30,
        "registration_number": "HRB 123456",
        "annual_revenue": {"amount_minor": 480000000, "currency": "EUR"},
        "years_trading": 12,
        "purpose": "Freight of the spring season, paid a month later.",
    }
)


def application_of(tenant_id: str, now: datetime) -> Document:
    """Return a new document, whose applicant is nobody that sends requests and from which nothing follows."""
    applicant = Principal(
        tenant_id, "usr_applicant", "", "Sofia Marek", "shipper", "standard", Credential("login", "")
    )
    document = new_application(caller=applicant, application=_FORM, now=now)
    taken_up = {**new_event("in_review", actor_of(applicant), now), "version": VERSION}
    later = {"status": "in_review", "version": VERSION, "history": [*document["history"], taken_up]}
    return {**document, **later}


async def make_applications(world: World, count: int) -> list[Document]:
    """Insert that many of the users' company and return them."""
    tenant_id, now = world.users[0].owner.tenant_id, world.kit.clock.now()
    documents = [application_of(tenant_id, now) for _ in range(count)]
    rows = world.kit.mongo.collection(COLLECTION)
    for first in range(0, count, _AT_ONCE):
        async with world.kit.mongo.guard("bench.applications"):
            await rows.insert_many(documents[first : first + _AT_ONCE])
    return documents
