"""The demo company's applications for trade credit, in every state that people bring them to.

Made by the rules that hold for everybody. Idempotent: an application is known by its company's name. One that
was cut short goes on where it stopped; one that somebody has touched since stays as they left it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from app.core.money import minor_digits
from app.features.admin.demo_freight import acting_as
from app.features.credit import service
from app.features.credit.assignment import assign
from app.features.credit.documents import EVENTS_MAX
from app.features.credit.schemas import Assignment, Decision, NewApplication
from app.features.credit.store import ApplicationStore, Filters, scope_of
from app.features.credit.transitions import Status
from app.state.accounts import Account
from app.state.kit import StateKit
from app.state.mongo import Document
from app.state.principals import Principal
from app.state.versions import any_version

_ALL: Final = 100


@dataclass(frozen=True, slots=True)
class Step:
    """What a reviewer did: took it on if there is no status, else decided."""

    status: Status | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class DemoApplication:
    """An application in whole units of the tenant's currency, and what has happened since it was made."""

    company_name: str
    requested: int
    terms_days: int
    registration_number: str
    annual_revenue: int
    years_trading: int
    purpose: str
    since: tuple[Step, ...] = ()


_TAKEN: Final = Step()
_BEGUN: Final = (_TAKEN, Step("in_review"))
APPLICATIONS: Final = (
    DemoApplication(
        "Marek Maschinenbau GmbH",
        50_000,
        30,
        "HRB 123456",
        4_800_000,
        12,
        "Spring season, paid a month later",
    ),
    DemoApplication(
        "Blumenhof Ostfriesland eG", 18_000, 14, "GnR 20112", 2_150_000, 31, "Reefers to Milano every week"
    ),
    DemoApplication(
        "Solvent & Söhne KG", 75_000, 45, "HRA 9921", 6_400_000, 8, "Chemicals to Wien, forty runs a year"
    ),
    DemoApplication(
        "Kaarsgaard ApS",
        120_000,
        60,
        "CVR 38114022",
        9_900_000,
        5,
        "Furniture for a chain of shops",
        (_TAKEN,),
    ),
    DemoApplication(
        "Stal Bałtyk Sp. z o.o.", 240_000, 60, "KRS 0000412877", 31_000_000, 19, "Steel beams", _BEGUN
    ),
    DemoApplication(
        "Fromagerie Petit SARL",
        32_000,
        30,
        "RCS Lyon 482 113 907",
        3_700_000,
        22,
        "Cheese to Hamburg",
        (*_BEGUN, Step("in_review", "Last year's accounts are asked for")),
    ),
    DemoApplication(
        "Papier Weber GmbH & Co. KG",
        90_000,
        30,
        "HRA 4471",
        12_500_000,
        44,
        "Paper rolls, two trucks a day",
        _BEGUN,
    ),
    DemoApplication(
        "Van der Meer Tyres B.V.",
        150_000,
        45,
        "KvK 24361187",
        18_200_000,
        16,
        "Containers from Rotterdam",
        (*_BEGUN, Step("approved", "Sixteen years without a missed payment")),
    ),
    DemoApplication(
        "Ferri Arredamenti S.r.l.",
        60_000,
        30,
        "REA MI-1877402",
        5_300_000,
        9,
        "Exhibitions in autumn",
        (*_BEGUN, Step("in_review", "References are good"), Step("approved")),
    ),
    DemoApplication(
        "Gruber Hafenlogistik GmbH",
        40_000,
        21,
        "FN 288114 k",
        4_100_000,
        14,
        "Danube ports",
        (*_BEGUN, Step("approved")),
    ),
    DemoApplication(
        "Schnellstart Import UG",
        500_000,
        90,
        "HRB 998877",
        85_000,
        0,
        "Growth",
        (*_BEGUN, Step("rejected", "Asks for six times what it earns in a year")),
    ),
    DemoApplication(
        "Costa del Norte S.L.",
        65_000,
        120,
        "B-39877122",
        1_100_000,
        2,
        "Citrus, on long terms",
        (*_BEGUN, Step("rejected", "Terms beyond 90 days only with three years of trading")),
    ),
)


async def add_credit(kit: StateKit, shipper: Account, reviewer: Account) -> None:
    """Add what is missing: the shipper's applications, decided by `reviewer` as far as the demo goes."""
    caller, tenant = acting_as(shipper), await kit.tenants.get(shipper.tenant_id)
    store = ApplicationStore(kit)
    found = await store.page(scope_of(caller), Filters(), sort="created_at", skip=0, limit=_ALL)
    there = {row["company_name"]: row for row in found}
    for demo in APPLICATIONS:
        row = there.get(demo.company_name) or await _apply(kit, caller, demo, tenant.currency)
        await _go_on(kit, acting_as(reviewer), row, demo)


async def _apply(kit: StateKit, caller: Principal, demo: DemoApplication, currency: str) -> Document:
    form: Mapping[str, Any] = {
        "company_name": demo.company_name,
        "requested_amount": _money(demo.requested, currency),
        "terms_days": demo.terms_days,
        "registration_number": demo.registration_number,
        "annual_revenue": _money(demo.annual_revenue, currency),
        "years_trading": demo.years_trading,
        "purpose": demo.purpose,
    }
    return await service.submit(kit, caller, NewApplication.model_validate(form))


async def _go_on(kit: StateKit, reviewer: Principal, row: Document, demo: DemoApplication) -> None:
    events = await ApplicationStore(kit).events(scope_of(reviewer), row["_id"], after=1, limit=EVENTS_MAX)
    happened = [_step_of(event) for event in events]
    if happened != list(demo.since[: len(happened)]):
        return
    for version, step in enumerate(demo.since[len(happened) :], start=row["version"]):
        if step.status is None:
            await assign(kit, reviewer, row["_id"], Assignment(version=version), check_version=any_version)
        else:
            decision = Decision(status=step.status, version=version, note=step.note)
            await service.decide(kit, reviewer, row["_id"], decision, check_version=any_version)


def _step_of(event: Document) -> Step:
    return _TAKEN if event.get("reviewer") else Step(event["status"], event["note"])


def _money(units: int, currency: str) -> dict[str, Any]:
    return {"amount_minor": units * 10 ** minor_digits(currency), "currency": currency}
