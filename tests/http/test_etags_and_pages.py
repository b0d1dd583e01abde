"""Versions in headers, positions in cursors."""

from base64 import urlsafe_b64encode

import httpx
import pytest

from app.core.errors import PreconditionFailedError, ValidationFailedError, VersionConflictError
from app.http.etags import WriteCondition, etag, parse_if_match
from app.http.paging import decode_cursor, encode_cursor, page_of


@pytest.mark.parametrize(
    ("header", "allowed"),
    [
        (None, None),
        ("*", None),
        ('"3"', {3}),
        (' "3" , "5" ', {3, 5}),
        ('W/"3"', set()),
        ('W/"3", "4"', {4}),
        ('"abc"', set()),
        ('"03"', set()),
        ('""', set()),
        ('"99999999999999999999999"', set()),
    ],
)
def test_if_match_allows_the_strong_tags_it_lists(header: str | None, allowed: set[int] | None) -> None:
    assert parse_if_match(header) == allowed


@pytest.mark.parametrize("header", ["3", '"3', '3"', '"3" "4"', '"3",', '*, "3"', 'w/"3"', '"a"b"', "'3'"])
def test_an_if_match_that_is_no_list_of_tags_is_a_422(header: str) -> None:
    with pytest.raises(ValidationFailedError):
        parse_if_match(header)


async def test_several_if_match_headers_are_one_list(sample: httpx.AsyncClient) -> None:
    headers = [("If-Match", '"3"'), ("If-Match", '"5"')]
    response = await sample.get("/api/v1/samples/conditional", headers=headers)
    assert response.json() == {"versions": [3, 5]}


def test_if_match_is_checked_before_the_version_in_the_body() -> None:
    both_wrong = WriteCondition(if_match=frozenset({1}), body_version=2)
    with pytest.raises(PreconditionFailedError):
        both_wrong.check(3)
    with pytest.raises(VersionConflictError):
        WriteCondition(if_match=frozenset({3}), body_version=2).check(3)
    WriteCondition(if_match=frozenset({3}), body_version=3).check(3)


def test_a_weak_tag_never_matches() -> None:
    with pytest.raises(PreconditionFailedError):
        WriteCondition(if_match=parse_if_match('W/"3"')).check(3)


def test_a_write_without_a_version_is_unconditional() -> None:
    assert not WriteCondition().is_conditional
    WriteCondition().check(99)


@pytest.mark.parametrize(
    ("if_match", "body_version", "newest"),
    [
        (None, None, None),
        ("*", None, None),
        (None, 4, 4),
        ('"3", "5"', None, 5),
        ('"3"', 4, 4),
        ('W/"3"', None, 0),
    ],
)
def test_no_version_above_the_newest_named_passes(
    if_match: str | None, body_version: int | None, newest: int | None
) -> None:
    condition = WriteCondition(parse_if_match(if_match), body_version)
    assert condition.newest_named == newest
    if newest is None:
        condition.check(10**6)
    else:
        with pytest.raises((PreconditionFailedError, VersionConflictError)):
            condition.check(newest + 1)


def test_a_version_survives_the_way_through_an_etag() -> None:
    assert parse_if_match(etag(42)) == frozenset({42})


def test_a_cursor_comes_back_as_the_position_it_was_made_of() -> None:
    cursor = encode_cursor("bookings", ("2026-01-31T10:00:00Z", 7, "bkg_ü"))
    assert decode_cursor("bookings", cursor, (str, int, str)) == ("2026-01-31T10:00:00Z", 7, "bkg_ü")


def test_a_cursor_of_another_list_is_refused() -> None:
    with pytest.raises(ValidationFailedError):
        decode_cursor("addresses", encode_cursor("bookings", ("a",)), (str,))


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "====",
        "ünicode",
        "null",
        urlsafe_b64encode(b'["a"]').decode(),
        encode_cursor("b", ("a",))[:-2] + "AA",
    ],
)
def test_a_broken_cursor_is_a_422(cursor: str) -> None:
    with pytest.raises(ValidationFailedError):
        decode_cursor("b", cursor, (str,))


def test_a_cursor_of_another_shape_is_refused() -> None:
    with pytest.raises(ValidationFailedError):
        decode_cursor("b", encode_cursor("b", ({"$gt": ""},)), (str,))  # type: ignore[arg-type]


def test_pages_follow_each_other_without_gap_or_overlap() -> None:
    rows = list(range(7))
    seen: list[int] = []
    cursor: str | None = None
    while True:
        position = decode_cursor("rows", cursor, (int,))
        start = 0 if position is None else int(position[0]) + 1
        page = page_of(rows[start : start + 3 + 1], limit=3, kind="rows", position_of=lambda row: (row,))
        seen += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == rows
