"""Bad bodies get a clear 4xx, quickly, and change nothing."""

import contextlib
import json
from collections.abc import AsyncIterator

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.core.errors import BadRequestError, ValidationFailedError
from app.http import json_body
from tests.http.conftest import Seen

GOOD = {"cargo": {"weight_kg": 12.5}}
JSON = {"Content-Type": "application/json"}

REFUSED = {
    "a duplicate key": (b'{"a":{"b":1,"b":2}}', "a.b"),
    "a duplicate key in disguise": (b'{"a":1,"\\u0061":2}', "a"),
    "NaN": (b'{"a":[1,NaN]}', "a.1"),
    "infinity": (b'{"a":-Infinity}', "a"),
    "a float that overflows": (b'{"a":1e999}', "a"),
    "a float that overflows without an exponent": (b'{"a":' + b"9" * 400 + b".5}", "a"),
    "an integer above 64 bits": (b'{"a":9223372036854775808}', "a"),
    "an integer below 64 bits": (b'{"a":-9223372036854775809}', "a"),
    "five thousand digits": (b"1" * 5000, "body"),
    "half a surrogate pair": (b'{"a":"\\ud83d"}', "a"),
    "half a surrogate pair in a key": (b'{"\\udc00":1}', "?"),
    "NUL": (b'{"a":"x\\u0000y"}', "a"),
    "NUL in a key": (b'{"x\\u0000":1}', "x?"),
    "an operator": (b'{"data":{"$set":{"role":"admin"}}}', "data.$set"),
    "an operator in disguise": (b'{"data":[{"\\u0024where":1}]}', "data.0.$where"),
    "33 levels": (b"[" * 33 + b"]" * 33, "body"),
    "33 levels of both kinds": (b'[{"a":' * 16 + b"[]" + b"}]" * 16, "body"),
    "900 levels": (b"[" * 900 + b"]" * 900, "body"),
    "900 levels of objects": (b'{"a":' * 900 + b"1" + b"}" * 900, "body"),
    "100,000 levels": (b"[" * 100_000 + b"]" * 100_000, "body"),
}
NOT_JSON = {
    "a bare word": b"{a:1}",
    "a trailing comma": b'{"a":1,}',
    "two values": b"{} {}",
    "white space": b"  ",
    "a control character": b'"\x01"',
    "invalid UTF-8": b'"\xff\xfe"',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "an open bracket": b"[" * 50,
}
TAKEN = {
    "the ends of 64 bits": b'{"a":9223372036854775807,"b":-9223372036854775808}',
    "a whole surrogate pair": b'{"a":"\\ud83d\\ude00"}',
    "a dollar in text": b'{"price":"$100"}',
    "32 levels": b"[" * 32 + b"]" * 32,
    "brackets in text": b'{"a":"' + b"[{" * 100 + b'"}',
    "escaped quotes and brackets": b'["' + b'\\"[' * 100 + b'",[]]',
    "many shallow containers": b"[" + b"[]," * 500 + b"{}]",
    "a large exponent that fits": b'{"a":1e308}',
    "a backslash before u": b'{"a":"\\\\u0000"}',
}


@pytest.mark.parametrize("name", REFUSED)
async def test_json_that_systems_read_differently_is_a_422_that_names_the_place(
    name: str, sample: httpx.AsyncClient, seen: Seen
) -> None:
    body, field = REFUSED[name]
    response = await sample.post("/api/v1/samples/anything", content=body, headers=JSON)
    assert response.status_code == 422
    problem = response.json()
    assert problem["code"] == "validation_failed"
    assert problem["errors"][0]["field"] == field
    assert seen.changes == []


@pytest.mark.parametrize("name", NOT_JSON)
async def test_what_is_not_json_is_a_400(name: str, sample: httpx.AsyncClient, seen: Seen) -> None:
    response = await sample.post("/api/v1/samples/anything", content=NOT_JSON[name], headers=JSON)
    assert response.status_code == 400
    assert response.json()["code"] == "bad_request"
    assert seen.changes == []


@pytest.mark.parametrize("name", TAKEN)
async def test_unusual_but_plain_json_is_taken(name: str, sample: httpx.AsyncClient, seen: Seen) -> None:
    response = await sample.post("/api/v1/samples/anything", content=TAKEN[name], headers=JSON)
    assert response.status_code == 204
    assert seen.changes == [json.loads(TAKEN[name])]


@pytest.mark.parametrize(
    "body", [GOOD | {"extra": 1}, GOOD | {"cargo": {"weight_kg": 0}}, GOOD | {"count": "many"}, []]
)
async def test_a_body_that_breaks_the_schema_is_a_422_and_changes_nothing(
    body: object, sample: httpx.AsyncClient, seen: Seen
) -> None:
    response = await sample.post("/api/v1/samples", json=body)
    assert response.status_code == 422
    assert response.json()["errors"]
    assert seen.changes == []


async def test_a_field_error_says_where_and_does_not_repeat_the_value(sample: httpx.AsyncClient) -> None:
    response = await sample.post("/api/v1/samples", json={"cargo": {"weight_kg": "very-secret"}})
    assert response.json()["errors"][0]["field"] == "cargo.weight_kg"
    assert "very-secret" not in response.text


async def test_an_endless_unknown_field_name_is_not_repeated_whole(sample: httpx.AsyncClient) -> None:
    response = await sample.post("/api/v1/samples", json=GOOD | {"k" * 100_000: 1})
    assert response.status_code == 422
    assert len(response.content) < 2000


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/xml", "multipart/form-data", "json", None]
)
async def test_a_body_of_another_type_is_a_415(
    content_type: str | None, sample: httpx.AsyncClient, seen: Seen
) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    response = await sample.post("/api/v1/samples", content=json.dumps(GOOD), headers=headers)
    assert response.status_code == 415
    assert seen.changes == []


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/merge-patch+json"]
)
async def test_the_names_of_json_are_taken(content_type: str, sample: httpx.AsyncClient) -> None:
    headers = {"Content-Type": content_type}
    response = await sample.post("/api/v1/samples", content=json.dumps(GOOD), headers=headers)
    assert response.status_code == 201


async def test_a_missing_body_is_a_422_where_one_is_required(sample: httpx.AsyncClient, seen: Seen) -> None:
    response = await sample.post("/api/v1/samples")
    assert response.status_code == 422
    assert response.json()["errors"] == [{"field": "body", "message": "Field required"}]
    assert seen.changes == []


async def test_a_missing_body_is_fine_where_none_is_required(sample: httpx.AsyncClient) -> None:
    assert (await sample.post("/api/v1/samples/optional")).json() == {"given": False}
    assert (await sample.post("/api/v1/samples/optional", json=GOOD)).json() == {"given": True}


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=ten", "limit=1e3", "limit="])
async def test_a_query_parameter_out_of_range_is_a_422_that_names_it(
    query: str, sample: httpx.AsyncClient
) -> None:
    response = await sample.get(f"/api/v1/samples?{query}")
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "limit"


async def test_a_body_longer_than_the_limit_is_a_413_before_it_is_read(
    sample: httpx.AsyncClient, seen: Seen
) -> None:
    response = await sample.post(
        "/api/v1/samples/anything", content=b'"' + b"x" * 1024 * 1024 + b'"', headers=JSON
    )
    assert response.status_code == 413
    assert response.json()["code"] == "payload_too_large"
    assert seen.changes == []


async def test_a_chunked_body_is_a_413_as_soon_as_it_gets_too_long(
    sample: httpx.AsyncClient, seen: Seen
) -> None:
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(64):
            sent += 1
            yield b"[" * 64 * 1024

    response = await sample.post("/api/v1/samples/anything", content=chunks(), headers=JSON)
    assert response.status_code == 413
    assert seen.changes == []
    assert sent < 20


async def test_a_route_may_take_a_larger_body_and_has_its_own_limit(sample: httpx.AsyncClient) -> None:
    fits = b"[" + b"1," * 700_000 + b"1]"
    response = await sample.post("/api/v1/samples/large", content=fits, headers=JSON)
    assert response.json() == {"items": 700_001}
    response = await sample.post("/api/v1/samples/large", content=fits + b" " * 1024 * 1024, headers=JSON)
    assert response.status_code == 413


async def test_an_upload_that_is_too_long_without_saying_so_is_a_413(
    sample: httpx.AsyncClient, seen: Seen
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(40):
            yield b"x" * 64 * 1024
        yield b"\r\n--b--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    response = await sample.post("/api/v1/samples/upload", content=chunks(), headers=headers)
    assert response.status_code == 413
    assert seen.changes == []


async def test_a_broken_upload_is_a_400(sample: httpx.AsyncClient, seen: Seen) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    response = await sample.post("/api/v1/samples/upload", content=b"--x\r\nnonsense", headers=headers)
    assert response.status_code in {400, 422}
    assert seen.changes == []


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
KEYS = TEXT.filter(lambda key: not key.startswith("$"))
VALUES = st.recursive(
    SCALARS | TEXT, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=30
)


@given(VALUES, st.booleans())
@hypothesis_settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_everything_plain_comes_back_as_the_standard_decoder_reads_it(value: object, escaped: bool) -> None:
    body = json.dumps(value, ensure_ascii=escaped).encode()
    assert json_body.parse(body) == json.loads(body)


@given(st.binary(max_size=200) | st.text('[]{}":,\\u0d1e$9-+.NaInfity ', max_size=200).map(str.encode))
def test_no_bytes_whatever_cause_anything_but_a_value_or_a_4xx(body: bytes) -> None:
    with contextlib.suppress(BadRequestError, ValidationFailedError):
        json_body.parse(body)
