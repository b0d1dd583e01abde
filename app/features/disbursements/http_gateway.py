"""A payment gateway behind HTTP.

    POST {GATEWAY_URL}/payments          Idempotency-Key: the key    {"amount_minor", "currency", "payee"}
    GET  {GATEWAY_URL}/payments/{key}

with `Authorization: Bearer {GATEWAY_API_KEY}`. Answers are {"id", "status": "paid" | "pending" | "refused",
"reason"?}. Gateways differ; one that speaks otherwise gets an adapter like this one, of the same port.

| answer | means |
|---|---|
| 2xx, `paid` | it was paid |
| 2xx, `refused`; 400, 402, 422 | it refuses, and has not paid |
| 404 to GET | there is no such payment |
| anything else: `pending`, 401, 409, 429, 5xx, rubbish, silence, a broken connection | open |

A wrong key of ours (401, 403) counts as open, not as refused: nothing is wrong with the payment, and it is
made once the key is right.
"""

import asyncio
import logging
from typing import Any, Final

import httpx
import orjson

from app.core.settings import Settings
from app.features.disbursements.gateway import AnswerOpenError, Order, Payment, PaymentRefusedError

_log = logging.getLogger(__name__)

ANSWER_MAX_BYTES: Final = 64 * 1024
_REASON_MAX_CHARACTERS: Final = 200
_ID_MAX_CHARACTERS: Final = 200
_REFUSALS: Final = frozenset((400, 402, 422))
_OUR_FAULT: Final = frozenset((401, 403))
_NOT_FOUND: Final = 404
_OK: Final = range(200, 300)


class HttpGateway:
    """A `Gateway`."""

    def __init__(self, settings: Settings, client: httpx.AsyncClient) -> None:
        """`client` has no base URL."""
        self._client = client
        self._url = settings.gateway_url.rstrip("/")
        self._timeout_s = settings.gateway_timeout_s
        key = settings.gateway_api_key.get_secret_value()
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    async def pay(self, order: Order) -> Payment:
        """See `Gateway`."""
        body = {"amount_minor": order.amount_minor, "currency": order.currency, "payee": order.payee}
        status, answer = await self._ask(
            "POST", "/payments", json=body, headers={"Idempotency-Key": order.key}
        )
        return _payment(status, answer)

    async def find(self, key: str) -> Payment | None:
        """See `Gateway`."""
        status, answer = await self._ask("GET", f"/payments/{key}", headers={})
        return None if status == _NOT_FOUND else _payment(status, answer)

    async def _ask(
        self, method: str, path: str, *, headers: dict[str, str], json: Any = None
    ) -> tuple[int, Any]:
        """Return the status and the body, parsed if it is JSON. Raises AnswerOpenError if none came."""
        try:
            async with asyncio.timeout(self._timeout_s):
                request = self._client.stream(
                    method, self._url + path, json=json, headers={**self._headers, **headers}
                )
                async with request as response:
                    body = b""
                    async for chunk in response.aiter_bytes():
                        body += chunk
                        if len(body) > ANSWER_MAX_BYTES:
                            raise AnswerOpenError("its answer does not end")
        except (httpx.HTTPError, TimeoutError) as error:
            raise AnswerOpenError(f"no answer: {type(error).__name__}") from error
        if response.status_code in _OUR_FAULT:
            _log.error("gateway_refuses_us", extra={"status": response.status_code})
        try:
            return response.status_code, orjson.loads(body)
        except orjson.JSONDecodeError:
            return response.status_code, None


def _payment(status: int, answer: Any) -> Payment:
    said = answer if isinstance(answer, dict) else {}
    if status in _REFUSALS or (status in _OK and said.get("status") == "refused"):
        reason = said.get("reason")
        raise PaymentRefusedError(
            reason[:_REASON_MAX_CHARACTERS] if isinstance(reason, str) and reason else "no reason given"
        )
    payment_id = said.get("id")
    if status in _OK and said.get("status") == "paid" and isinstance(payment_id, str) and payment_id:
        return Payment(payment_id[:_ID_MAX_CHARACTERS])
    raise AnswerOpenError(f"it answered {status}")
