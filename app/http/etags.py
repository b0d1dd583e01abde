"""Versions as ETags: `ETag: "7"` out, `If-Match: "7"` in.

How `If-Match` is read (RFC 9110, section 13.1.1): strong tags in a list, any of which may be the current one;
`*` is true of every document that exists, so it asks for nothing here. A weak tag or one that is no version
is well formed and never matches, which ends in 412. What is not a list of tags at all is a 422.

A write may also name its version in the body. Both are checked against the same document, `If-Match` first.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Request

from app.core.errors import PreconditionFailedError, ValidationFailedError, VersionConflictError

_IF_MATCH_MAX_CHARACTERS: Final = 1000
_TAG: Final = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
_LIST: Final = re.compile(rf"\s*{_TAG}(?:\s*,\s*{_TAG})*\s*")
_STRONG_VERSION: Final = re.compile(r'(?<!W/)"([1-9][0-9]{0,17})"')


def etag(version: int) -> str:
    """Return the value of the `ETag` header for a document at that version."""
    return f'"{version}"'


def parse_if_match(value: str | None) -> frozenset[int] | None:
    """Return the versions the header allows; None when it asks for nothing (absent or `*`).

    An empty set allows none. Raises ValidationFailedError for what is not a list of entity tags.
    """
    if value is None or value.strip() == "*":
        return None
    if len(value) > _IF_MATCH_MAX_CHARACTERS or _LIST.fullmatch(value) is None:
        raise ValidationFailedError(
            "If-Match can't be read.",
            errors=[{"field": "If-Match", "message": 'send the ETag as it was received, such as "7", or *'}],
        )
    return frozenset(int(version) for version in _STRONG_VERSION.findall(value))


async def _if_match(request: Request) -> frozenset[int] | None:
    return parse_if_match(", ".join(request.headers.getlist("if-match")) or None)


IfMatch = Annotated[frozenset[int] | None, Depends(_if_match)]
"""The versions that `If-Match` allows, as a dependency of a route; None when it asks for nothing."""


@dataclass(frozen=True, slots=True)
class WriteCondition:
    """What a caller says about the version it means to change."""

    if_match: frozenset[int] | None = None
    body_version: int | None = None

    @property
    def is_conditional(self) -> bool:
        """Whether the write must find a certain version: the one that `check` passed goes into its filter."""
        return self.if_match is not None or self.body_version is not None

    @property
    def newest_named(self) -> int | None:
        """The newest version that could pass; None if any could. A tag that matches no version gives 0."""
        if self.if_match is None:
            return self.body_version
        return max((*self.if_match, self.body_version or 0), default=0)

    def check(self, current_version: int) -> None:
        """Compare with the document's version.

        Raises PreconditionFailedError (412) or else VersionConflictError (409). Passing is no promise about
        the moment of the write: the update's filter must hold the version too, and a write that matched
        nothing comes back here with the version that is current then.
        """
        if self.if_match is not None and current_version not in self.if_match:
            raise PreconditionFailedError(current_version=current_version)
        if self.body_version is not None and self.body_version != current_version:
            raise VersionConflictError(current_version=current_version)
