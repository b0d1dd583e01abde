"""`Idempotency-Key` at the edge: a route that creates something, and what it takes to be safe to repeat.

    @router.post("", status_code=201)
    async def create(body: NewThing, kit: Kit, call: KeyedCaller) -> Response:
        return await call.once(
            lambda keyed: service.create(kit, call.principal, body, keyed),
            answer_of=lambda thing: created(_shown(thing), location=f"/…/{thing.id}", version=thing.version),
        )

`keyed_caller` takes the place of `Caller` (and of `requires(role)`). It admits the caller in the same one
round trip; only a request with a key then costs a read of MongoDB by key. The service passes `keyed` on to
the write that decides, `Idempotency.insert` or `Idempotency.run`, which commits the answer with the effect. A
request without a key goes through the same lines with `keyed` being None. Where the answer is not there yet
when the effect is, `made_or_answer` takes the place of `once`: what is kept names what was made.

A replay costs no rate limit: what admission counted is given back, and a limit that is used up (which counts
nothing) refuses only what turns out not to be a replay. What the route itself allows is counted once a key,
so that of a request sent many times at once none is refused because of the others. The body is read here,
after admission, to know what the request asks for: as JSON, so that neither white space nor the order of
members matters; path and query belong to it, too. A route with another kind of body takes `unread_caller`: it
reads the body itself, and says afterwards what it was.
"""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Any, Final, TypeVar

import orjson
from fastapi import Depends, Header, Request
from starlette.responses import Response

from app.core.errors import CargoFlowError, ValidationFailedError
from app.http.admission import Admitted, kit, weigh, wrong_role
from app.http.context import context_of
from app.http.etags import etag
from app.http.json_request import JsonRequest
from app.http.limits import announce
from app.http.responses import JsonResponse, encode
from app.state.idempotency import KEYS
from app.state.keyed import (
    AlreadyDoneError,
    Answer,
    AnswerOf,
    Claim,
    InFlightError,
    Keyed,
    KeyReusedError,
    Stored,
)
from app.state.kit import StateKit
from app.state.principals import Principal, Role

HEADER: Final = "Idempotency-Key"
KEY_MAX_CHARACTERS: Final = 255
REPLAYED: Final = {"Idempotent-Replayed": "true"}
_SERVER_ERROR: Final = 500
_SAME_TIME: Final = timedelta(seconds=1)
"""What was made within it may be a twin's that this request was counted for; clocks differ by less."""

T = TypeVar("T")

KeyHeader = Annotated[
    str | None,
    Header(
        alias=HEADER,
        description="Repeat the request with the same key as often as you like: it has one effect, and the "
        "first answer comes back, for 24 hours.",
        # told, not checked by FastAPI, which would do so before the caller is known
        json_schema_extra={"minLength": 1, "maxLength": KEY_MAX_CHARACTERS, "pattern": "^[!-~]+$"},
    ),
]


class KeyedCall:
    """A caller with a request that may carry a key. Made by the dependency, for one request."""

    def __init__(
        self,
        request: Request,
        admitted: Admitted,
        claim: Claim | None,
        within: str,
        known: Answer | None,
        *,
        counted_before: bool = False,
    ) -> None:
        """`known` is the answer to the first request of this kind, if there was one; `counted_before`: so
        long ago that what admission counted does not stand for it.
        """
        self.principal: Principal = admitted.principal
        self._request = request
        self._admitted = admitted
        self._claim = claim
        self._within = within
        self._known = known
        self._counted_before = counted_before

    async def once(
        self, effect: Callable[[Keyed[T] | None], Awaitable[T]], *, answer_of: AnswerOf[T]
    ) -> Response:
        """Have the effect and answer it, unless it was had before: then send the first answer again.

        `effect` hands what it is given to `Idempotency.insert` or `run` and returns what it made; it is not
        called at all for a replay that is known beforehand. Raises what `effect` raises.
        """
        made = await self.made_or_answer(effect, answer_of=answer_of)
        return _response(made if isinstance(made, Answer) else answer_of(made))

    async def made_or_answer(
        self, effect: Callable[[Keyed[T] | None], Awaitable[T]], *, answer_of: AnswerOf[T]
    ) -> T | Answer:
        """Have the effect and return what it made, unless it was had before: then return the first answer, as
        it is to be sent: with the header that says so, and the limits given back.

        For routes whose answer is not there yet when the effect is: `answer_of` names what was made, and a
        replay looks for that. Raises as `once` does.
        """
        first = self._known
        if first is None:
            try:
                made = await effect(None if self._claim is None else Keyed(self._claim, answer_of))
            except AlreadyDoneError as done:
                first = done.answer
            except CargoFlowError as refusal:
                first = await self._answer_of_twin(refusal)
                if first is None:
                    raise
            else:
                if self._claim is not None:
                    self._kit.metrics.idempotent("first")
                return made
        return await self._replay(first)

    @property
    def _kit(self) -> StateKit:
        return kit(self._request)

    async def _answer_of_twin(self, refusal: CargoFlowError) -> Answer | None:
        """Look again when a rule says no: a twin that was quicker may be the reason."""
        undecided = isinstance(refusal, KeyReusedError | InFlightError) or refusal.status >= _SERVER_ERROR
        if self._claim is None or undecided:
            return None
        stored = await self._kit.idempotency.find(self._claim.key, within=self._within)
        return None if stored is None else self._kit.idempotency.answer_to(stored, self._claim)

    async def _replay(self, first: Answer) -> Answer:
        self._kit.metrics.idempotent("replayed")
        charge = self._admitted.charge
        await self._kit.limits.refund(charge, for_twins=self._counted_before)
        if charge.windows and (self._counted_before or not charge.twin_windows):
            announce(self._request, replace(charge.standing, remaining=charge.standing.remaining + 1))
        return replace(first, headers={**first.headers, **REPLAYED})


class UnreadCall:
    """A caller with a request that may carry a key, and whose body the route itself reads (an upload)."""

    def __init__(
        self,
        request: Request,
        admitted: Admitted,
        key: str | None,
        within: str,
        stored: Stored | None,
        *,
        counted_before: bool = False,
    ) -> None:
        """`key` is the scoped one, `stored` what is known of it."""
        self.principal: Principal = admitted.principal
        self._request = request
        self._admitted = admitted
        self._key = key
        self._within = within
        self._stored = stored
        self._counted_before = counted_before

    def read(self, body: Any) -> KeyedCall:
        """Return the call, now that it is known what it asks for: `body` is JSON-like, a hash will do.

        Raises KeyReusedError, or the 429 that admission kept back for a replay.
        """
        if self._key is None:
            return KeyedCall(self._request, self._admitted, None, self._within, None)
        idempotency = kit(self._request).idempotency
        claim = idempotency.claim(self._key, _canonical(self._request, body))
        known = None
        if self._stored is not None:
            try:
                known = idempotency.answer_to(self._stored, claim)
            except KeyReusedError as reused:
                raise self._admitted.refusal or reused from None
        return KeyedCall(
            self._request,
            self._admitted,
            claim,
            self._within,
            known,
            counted_before=self._counted_before,
        )


def unread_caller(*roles: Role, within: str = KEYS) -> Callable[..., Awaitable[UnreadCall]]:
    """Return a dependency as `keyed_caller` does, for a route that reads its body itself, a piece at a time.

    What is known of the key is looked up before that, and compared by `UnreadCall.read` after it.
    """

    async def call(request: Request, idempotency_key: KeyHeader = None) -> UnreadCall:
        began_at = kit(request).clock.now()
        admitted = await weigh(request, twin=_twin(request, idempotency_key))
        refusal = admitted.refusal
        forbidden = wrong_role(admitted.principal, roles)
        if forbidden is not None:
            raise refusal or forbidden
        if idempotency_key is None:
            if refusal is not None:
                raise refusal
            return UnreadCall(request, admitted, None, within, None)
        key = _scoped(request, admitted.principal, refusal)
        stored = await kit(request).idempotency.find(key, within=within)
        if stored is None and refusal is not None:
            raise refusal
        counted_before = stored is not None and stored.made_at < began_at - _SAME_TIME
        return UnreadCall(request, admitted, key, within, stored, counted_before=counted_before)

    return call


def keyed_caller(*roles: Role, within: str = KEYS) -> Callable[..., Awaitable[KeyedCall]]:
    """Return a dependency that admits a caller, of one of these roles if any are named, with a keyed request.

    `within` names the collection whose documents carry the keys, for routes that use `Idempotency.insert`.
    """
    unread = unread_caller(*roles, within=within)

    async def call(request: Request, idempotency_key: KeyHeader = None) -> KeyedCall:
        found = await unread(request, idempotency_key)
        return found.read(None if idempotency_key is None else await _json(request))

    return call


KeyedCaller = Annotated[KeyedCall, Depends(keyed_caller())]
"""A living user with a request that may carry a key; keys are kept in `idempotency_keys`."""


def created(content: Any, *, location: str, version: int, status: int = 201) -> Answer:
    """Return the answer that shows what was made; `content` is anything JSON-like, or JSON in bytes."""
    body = content if isinstance(content, bytes) else encode(content)
    return Answer(status, body, {"ETag": etag(version), "Location": location})


def _twin(request: Request, key: str | None) -> str:
    """Return what the request has in common with those of the same caller that may be the same one."""
    if key is None:
        return ""
    named = f"{request.method} {context_of(request.scope).template} {key}"
    return hashlib.sha256(named.encode()).hexdigest()[:32]


def _scoped(request: Request, principal: Principal, refusal: Exception | None) -> str:
    """Return the scoped key of the request. Raises what a malformed one deserves."""
    keys = request.headers.getlist(HEADER)
    well_formed = len(keys) == 1 and 1 <= len(keys[0]) <= KEY_MAX_CHARACTERS
    if not well_formed or not all("!" <= character <= "~" for character in keys[0]):
        raise refusal or ValidationFailedError(
            f"The {HEADER} is malformed.",
            errors=[
                {"field": HEADER, "message": f"one, of 1 to {KEY_MAX_CHARACTERS} visible ASCII characters"}
            ],
        )
    return kit(request).idempotency.scoped(
        tenant_id=principal.tenant_id,
        user_id=principal.user_id,
        route=f"{request.method} {context_of(request.scope).template}",
        key=keys[0],
    )


async def _json(request: Request) -> Any:
    """Return the body's value, None without one. Raises what reading JSON raises."""
    strict = request if isinstance(request, JsonRequest) else JsonRequest(request.scope, request.receive)
    return await strict.json() if await strict.has_json() else None


def _canonical(request: Request, body: Any) -> bytes:
    """Return what the request asks for."""
    asked = [request.scope["path"], request.scope["query_string"].decode("latin-1"), body]
    return orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)


def _response(answer: Answer) -> Response:
    return JsonResponse(answer.body, status_code=answer.status, headers=dict(answer.headers))
