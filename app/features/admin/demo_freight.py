"""The demo company's freight: an address book, bookings in every state of their life, a draft.

Made by the rules that hold for everybody, so that it is nothing a user could not have made. Idempotent: an
entry is known by its label, a booking by its reference, a draft by being there; what is there stays, but for
a booking that has not got as far as it should, which goes on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from app.features.addresses import service as addresses
from app.features.addresses.schemas import NewAddress
from app.features.addresses.store import AddressStore
from app.features.bookings import drafts, service
from app.features.bookings.documents import reference_key
from app.features.bookings.forms import TYPE, Save
from app.features.bookings.pricing import Equipment
from app.features.bookings.schemas import NewBooking
from app.features.bookings.store import BookingStore, Filters
from app.features.bookings.transitions import Status
from app.state.accounts import Account
from app.state.kit import StateKit
from app.state.mongo import Document
from app.state.principals import Credential, Principal
from app.state.session_documents import Owner
from app.state.versions import any_version

PAGE: Final = 100
PLACES: Final[Mapping[str, dict[str, Any]]] = {
    "Hamburg": {
        "contact_name": "Ines Olsen", "phone": "+49 40 428540", "line1": "Am Sandtorkai 50",
        "city": "Hamburg", "postal_code": "20457", "country": "DE",
    },
    "Rotterdam": {
        "contact_name": "Jan Visser", "phone": "+31 10 7654321", "line1": "Wilhelminakade 909",
        "city": "Rotterdam", "postal_code": "3072 AP", "country": "NL",
    },
    "Gdańsk": {
        "contact_name": "Ewa Nowak", "phone": "+48 58 7371000", "line1": "ul. Kontenerowa 7",
        "city": "Gdańsk", "postal_code": "80-601", "country": "PL",
    },
    "Milano": {
        "contact_name": "Luca Ferri", "phone": "+39 02 12345678", "line1": "Via Valtellina 17",
        "city": "Milano", "postal_code": "20159", "country": "IT",
    },
    "Wien": {
        "contact_name": "Anna Gruber", "phone": "+43 1 7115500", "line1": "Freudenauer Hafenstraße 8",
        "city": "Wien", "postal_code": "1020", "country": "AT",
    },
    "Lyon": {
        "contact_name": "Chloé Petit", "phone": "+33 4 72 10 30 30", "line1": "Rue de la Navigation 3",
        "city": "Lyon", "postal_code": "69007", "country": "FR",
    },
}  # fmt: skip
ADDRESS_BOOK: Final = ("Hamburg", "Rotterdam", "Gdańsk")
"""Places of the address book; the first is the default."""

_ROAD: Final[tuple[Status, ...]] = ("assigned", "picked_up", "in_transit", "delivered", "closed")


@dataclass(frozen=True, slots=True)
class DemoBooking:
    """A booking, its pick-up so many days from now, and what has happened since it was made."""

    reference: str
    origin: str
    destination: str
    equipment: Equipment
    goods: str
    weight_kg: int
    pieces: int
    days: int
    since: tuple[Status, ...] = ()
    hazardous: bool = False


BOOKINGS: Final = (
    DemoBooking("PO-20417", "Hamburg", "Rotterdam", "dry_van", "Machine parts", 8400, 12, 9),
    DemoBooking("PO-20422", "Rotterdam", "Milano", "reefer", "Cut flowers", 5200, 33, 2),
    DemoBooking("PO-20398", "Gdańsk", "Wien", "flatbed", "Steel beams", 21500, 18, 4, _ROAD[:1]),
    DemoBooking("PO-20390", "Milano", "Lyon", "dry_van", "Furniture", 6100, 41, 1, _ROAD[:2]),
    DemoBooking(
        "PO-20377", "Hamburg", "Wien", "container", "Solvents", 14800, 20, 1, _ROAD[:3], hazardous=True
    ),
    DemoBooking("PO-20351", "Lyon", "Hamburg", "reefer", "Cheese", 9900, 22, 1, _ROAD[:4]),
    DemoBooking("PO-20305", "Rotterdam", "Gdańsk", "container", "Tyres", 17300, 640, 1, _ROAD),
    DemoBooking("PO-20388", "Wien", "Milano", "dry_van", "Paper rolls", 19200, 24, 20, ("cancelled",)),
)
DRAFT: Final[dict[str, Any]] = {
    "pickup": {"city": "Hamburg", "country": "DE"},
    "delivery": {"city": "Rotterdam", "country": "NL"},
    "cargo": {"description": "Machine parts", "weight_kg": 8400, "pieces": 12},
}


async def add_freight(kit: StateKit, shipper: Account, staff: Account) -> None:
    """Add what is missing: the shipper's addresses, draft and bookings, moved on by `staff`."""
    await _add_addresses(kit, Owner(shipper.tenant_id, shipper.id))
    if not await kit.sessions.page(Owner(shipper.tenant_id, shipper.id), session_type=TYPE, limit=1):
        await drafts.create(kit, acting_as(shipper), Save(DRAFT, step=2))
    for demo in BOOKINGS:
        await _add_booking(kit, acting_as(shipper), acting_as(staff), demo)


async def _add_addresses(kit: StateKit, owner: Owner) -> None:
    store = AddressStore(kit)
    there = {entry["label"] for entry in await store.page(owner, before=None, limit=PAGE)}
    for name in ADDRESS_BOOK:
        label = f"Warehouse {name}"
        if label not in there:
            is_default = name == ADDRESS_BOOK[0]
            entry = NewAddress.model_validate({**PLACES[name], "label": label, "is_default": is_default})
            await addresses.create(store, owner, entry)


async def _add_booking(kit: StateKit, shipper: Principal, staff: Principal, demo: DemoBooking) -> None:
    filters = Filters(reference_key=reference_key(demo.reference))
    found = await BookingStore(kit).page(shipper, filters, before=None, limit=1)
    booking = found[0] if found else await _book(kit, shipper, demo)
    happened = len(booking["events"]) - 1
    for status in demo.since[happened:]:
        await service.move(kit, staff, booking["_id"], status, note=None, check_version=any_version)


async def _book(kit: StateKit, shipper: Principal, demo: DemoBooking) -> Document:
    form = {
        "pickup": PLACES[demo.origin],
        "delivery": PLACES[demo.destination],
        "equipment": demo.equipment,
        "cargo": {
            "description": demo.goods,
            "weight_kg": demo.weight_kg,
            "pieces": demo.pieces,
            "hazardous": demo.hazardous,
        },
        "pickup_at": kit.clock.now() + timedelta(days=demo.days),
        "reference": demo.reference,
    }
    return await service.book(kit, shipper, NewBooking.model_validate(form))


def acting_as(account: Account) -> Principal:
    """Return the caller that this user would be."""
    return Principal(
        tenant_id=account.tenant_id,
        user_id=account.id,
        email=account.email,
        name=account.name,
        role=account.role,
        tier=account.tier,
        credential=Credential("login", ""),
    )
