"""Strict JSON: what a request's body may be.

RFC 8259 leaves room where systems then disagree with each other; this closes it. Refused with 422 and the
name of the place: duplicate keys, NaN and infinities (spelled out or by overflow, `1e999`), integers outside
64 bits, lone surrogates and NUL in text, keys that start with `$` (which MongoDB would read as operators),
and nesting deeper than DEPTH_MAX. Refused with 400: what is not JSON, or not UTF-8.

Bodies are small and mostly harmless, so suspicion comes first: a few searches at the speed of C decide
whether the plain C decoder suffices. Only a body that looks as if it could hold one of the above is decoded
again with hooks and walked to name the places. Time is linear in the body's length and no body recurses
deeper than the decoder's own guard.
"""

import json
import math
import re
from collections.abc import Iterator
from typing import Any, Final

from app.core.errors import BadRequestError, ValidationFailedError

DEPTH_MAX: Final = 32
"""Containers inside each other, the outermost included."""
ERRORS_MAX: Final = 20
"""How many places a refusal names."""

_INT64_MAX: Final = 2**63 - 1
_INT64_MIN: Final = -(2**63)
_INT_CHARACTERS_MAX: Final = 20
_KEY_SHOWN_MAX: Final = 64

_SUSPICIOUS: Final = re.compile(
    rb'"\$'  # a key that starts with $, or text that does
    rb"|\\u(?:[dD][89a-fA-F]|00(?:00|24))"  # half a surrogate pair, NUL or $ in disguise
    rb"|[0-9]{18}|[eE][+-]?[0-9]{2}"  # a number that may not fit
)
_STRINGS: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_TO_SQUARE: Final = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"{}[]"))
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class _Flaw:
    """Stands in a decoded tree where something was refused."""

    __slots__ = ("message",)

    def __init__(self, message: str) -> None:
        self.message = message


class _FlawFound(Exception):  # noqa: N818  # a signal between two decoders, never seen outside
    """The quick decoder met something only the careful one can name."""


def parse(body: bytes) -> Any:
    """Return the value that `body` holds.

    Raises BadRequestError for what is not JSON in UTF-8, ValidationFailedError for JSON that is refused, with
    `errors` naming the places such as `data.items.3`.
    """
    too_deep = _nests_deeper_than_allowed(body)
    try:
        text = body.decode()
        if _SUSPICIOUS.search(body):
            value = _CAREFUL.decode(text)
            _refuse_flaws(value)
        else:
            try:
                value = _QUICK.decode(text)
            except _FlawFound:
                value = _CAREFUL.decode(text)
                _refuse_flaws(value)
    except UnicodeDecodeError:
        raise BadRequestError("The body is not valid UTF-8.") from None
    except json.JSONDecodeError as error:
        raise BadRequestError(
            f"The body is not valid JSON: {error.msg.lower()} at line {error.lineno}, column {error.colno}."
        ) from None
    except RecursionError:
        too_deep, value = True, None
    if too_deep:
        raise _refusal([{"field": "body", "message": f"nested deeper than {DEPTH_MAX} levels"}])
    return value


def _nests_deeper_than_allowed(body: bytes) -> bool:
    """Peel one level of brackets a pass, without looking at anything but brackets outside strings."""
    if body.count(b"[") + body.count(b"{") <= DEPTH_MAX:
        return False
    brackets = _STRINGS.sub(b"", body).translate(_TO_SQUARE, _NOT_BRACKETS)
    for _ in range(DEPTH_MAX):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


def _quick_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _FlawFound
    return members


def _quick_constant(_: str) -> Any:
    raise _FlawFound


def _careful_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for key, value in pairs:
        members[key] = _Flaw("appears twice") if key in members else value
    return members


def _careful_constant(name: str) -> _Flaw:
    return _Flaw(f"{name} is not a JSON number")


def _careful_int(text: str) -> int | _Flaw:
    if len(text) <= _INT_CHARACTERS_MAX:
        number = int(text)
        if _INT64_MIN <= number <= _INT64_MAX:
            return number
    return _Flaw("does not fit into a 64-bit integer")


def _careful_float(text: str) -> float | _Flaw:
    number = float(text)
    return number if math.isfinite(number) else _Flaw("is too large for a number")


_QUICK: Final = json.JSONDecoder(object_pairs_hook=_quick_object, parse_constant=_quick_constant)
_CAREFUL: Final = json.JSONDecoder(
    object_pairs_hook=_careful_object,
    parse_constant=_careful_constant,
    parse_int=_careful_int,
    parse_float=_careful_float,
)


def _refuse_flaws(value: Any) -> None:
    errors = []
    for place, message in _flaws(value):
        errors.append({"field": place or "body", "message": message})
        if len(errors) == ERRORS_MAX:
            break
    if errors:
        raise _refusal(errors)


def _flaws(root: Any) -> Iterator[tuple[str, str]]:
    """Walk without recursion and yield (place, what is wrong)."""
    waiting: list[tuple[str, Any]] = [("", root)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, str):
            if message := _wrong_with_text(value):
                yield place, message
        elif isinstance(value, _Flaw):
            yield place, value.message
        elif isinstance(value, dict):
            for key, member in value.items():
                inner = f"{place}.{_shown(key)}" if place else _shown(key)
                if message := _wrong_with_key(key):
                    yield inner, message
                waiting.append((inner, member))
        elif isinstance(value, list):
            waiting.extend(
                (f"{place}.{index}" if place else str(index), item) for index, item in enumerate(value)
            )


def _wrong_with_text(text: str) -> str | None:
    if "\x00" in text:
        return "contains a NUL character"
    if _SURROGATE.search(text):
        return "contains half a surrogate pair, which is not text"
    return None


def _wrong_with_key(key: str) -> str | None:
    if key.startswith("$"):
        return "keys must not start with $"
    return _wrong_with_text(key)


def _shown(key: str) -> str:
    return key[:_KEY_SHOWN_MAX].encode(errors="replace").decode().replace("\x00", "?")


def _refusal(errors: list[dict[str, Any]]) -> ValidationFailedError:
    return ValidationFailedError("The body holds JSON that this API does not take.", errors=errors)
