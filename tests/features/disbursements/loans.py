"""What tests pay out."""

from typing import Any

import httpx

from app.state.kit import StateKit
from app.state.mongo import Document
from tests.features.credit.applications import EUROS
from tests.state.people import Person


async def disburse(
    api: httpx.AsyncClient, person: Person, application_id: str, key: str = "", **changes: Any
) -> httpx.Response:
    headers = {**person.headers, **({"Idempotency-Key": key} if key else {})}
    body = {"amount": EUROS, **changes}
    return await api.post(f"/applications/{application_id}/disburse", json=body, headers=headers)


async def look(api: httpx.AsyncClient, application_id: str, **options: Any) -> dict[str, Any]:
    answer = await api.get(f"/applications/{application_id}/disbursement", **options)
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


async def status(api: httpx.AsyncClient, application_id: str) -> str:
    found: str = (await api.get(f"/applications/{application_id}")).json()["status"]
    return found


async def transfers(kit: StateKit, application_id: str) -> list[Document]:
    rows = kit.mongo.collection("ledger_transfers").find({"_id": f"payout:{application_id}"})
    return [row async for row in rows]
