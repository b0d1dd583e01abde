"""Bad input of every kind gets a clear refusal: a 4xx problem that changes nothing, no 500 and no hang."""

import json
import string
from collections.abc import Iterator
from urllib.parse import quote

import httpx
import pytest

from tests.engines import Replica
from tests.fuzz.conftest import PASSWORD

API = "/api/v1"


@pytest.fixture
def http(target: Replica, admin_token: str) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {admin_token}"}
    with httpx.Client(base_url=target.url, headers=headers, timeout=30) as client:
        yield client


@pytest.fixture
def session(http: httpx.Client) -> Iterator[dict]:
    """A session to aim writes at; it must be the same afterwards."""
    made = http.post(f"{API}/sessions", json={"type": "temp_data", "data": {"kept": 1}})
    assert made.status_code == 201, made.text
    yield made.json()
    found = http.get(f"{API}/sessions/{made.json()['id']}?extend=false")
    assert found.status_code == 200
    assert (found.json()["data"], found.json()["version"]) == ({"kept": 1}, 1), (
        "a refused write had an effect"
    )
    assert http.delete(f"{API}/sessions/{made.json()['id']}").status_code == 204


def assert_refused(response: httpx.Response, *statuses: int) -> None:
    """It is a problem of one of these statuses, and says which request it answers."""
    assert response.status_code in statuses, f"{response.status_code} {response.text[:300]}"
    assert response.headers["content-type"].split(";")[0] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == response.status_code
    assert set(problem) >= {"type", "title", "status", "detail", "code", "request_id"}
    assert problem["request_id"] == response.headers["x-request-id"]


def nested(depth: int, opening: str = '{"a":', closing: str = "}") -> bytes:
    return (opening * depth + "1" + closing * depth).encode()


def with_data(data: bytes) -> bytes:
    return b'{"type":"temp_data","data":' + data + b"}"


IN_DATA = {
    "nan": b'{"n":NaN}',
    "infinity": b'{"n":-Infinity}',
    "a float that overflows": b'{"n":1e999}',
    "a lone surrogate": rb'{"s":"\ud800"}',
    "a lone low surrogate": rb'{"s":"x\udfffy"}',
    "a lone surrogate as a key": rb'{"\udcff":1}',
    "nested 33 deep": b'{"d":' + nested(33) + b"}",
    "nested 900 deep": b'{"d":' + nested(900) + b"}",
    "nested 100000 deep": b'{"d":' + nested(100_000, "[", "]") + b"}",
    "an operator as a key": b'{"$where":"sleep(10000)"}',
    "an operator further down": b'{"a":[{"b":{"$gt":""}}]}',
    "an integer of 21 digits": b'{"n":999999999999999999999}',
    "an integer of 5000 digits": b'{"n":' + b"9" * 5000 + b"}",
    "a key twice": b'{"a":1,"a":2}',
    "a nul in a key": rb'{"a\u0000b":1}',
    "a list": b"[1,2]",
    "text": b'"text"',
    "a number": b"7",
    "true": b"true",
}
NOT_JSON = {
    "nothing": b"",
    "broken utf-8": b'{"type":"temp_data","data":{"s":"\xff\xfe"}}',
    "utf-16": '{"type":"temp_data","data":{}}'.encode("utf-16"),
    "cut short": b'{"type":"temp_data","data":{',
    "two documents": b'{"type":"temp_data","data":{}}{}',
    "single quotes": b"{'type':'temp_data','data':{}}",
    "a comment": b'{"type":"temp_data","data":{}/* hello */}',
    "a raw control character": b'{"type":"temp_data","data":{"s":"\x01"}}',
    "an unclosed bracket, 100000 times": b"[" * 100_000,
    "xml": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
    "nul bytes": b"\0" * 100,
}
WRONG_BODIES = {
    "null": None,
    "a list": [],
    "text": "text",
    "no type": {"data": {}},
    "a type that isn't": {"type": "root", "data": {}},
    "a type that is a list": {"type": ["temp_data"], "data": {}},
    "a type that is an operator": {"type": {"$ne": ""}, "data": {}},
    "another's id": {"type": "temp_data", "data": {}, "user_id": "usr_0", "tenant_id": "ten_0"},
    "an unknown field": {"type": "temp_data", "data": {}, "colour": "red"},
    "a lifetime of text": {"type": "temp_data", "data": {}, "ttl_seconds": "soon"},
    "a lifetime below zero": {"type": "temp_data", "data": {}, "ttl_seconds": -1},
    "a lifetime of ages": {"type": "temp_data", "data": {}, "ttl_seconds": 10**18},
    "a fractional lifetime": {"type": "temp_data", "data": {}, "ttl_seconds": 60.5},
    "a lifetime of true": {"type": "temp_data", "data": {}, "ttl_seconds": True},
    "draft through the back door": {"type": "booking_draft", "data": {}},
    "more than 64 KB": {"type": "temp_data", "data": {"s": "x" * 70_000}},
}
IDS = (
    "ses_" + "0" * 400,
    "%00",
    "ses_%00",
    "..%2f..%2fetc%2fpasswd",
    "%2e%2e",
    "%ff%fe",
    "%ed%a0%80",
    "null",
    "-1",
    "{$ne:1}",
    "%7B%22$ne%22%3A1%7D",
    "ses_'; DROP TABLE sessions; --",
    "x" * 3000,
    "🚚",
    "*",
    "ses_0000000000000000000000",
    "key_0000000000000000000000",
)
CURSORS = (
    "",
    "x",
    "!!!!",
    "e30",
    "W10",
    "bnVsbA",
    "eyIkZ3QiOiIifQ",
    "A" * 4000,
    "%00",
    "%ff",
    "🚚",
    "eyJpZCI6MX0",
    "LTE",
    "MWU5OTk",
    "WyIyMDI2LTAxLTAxVDAwOjAwOjAwWiIsIHsiJGd0IjogIiJ9XQ",
)


@pytest.mark.parametrize("data", IN_DATA.values(), ids=IN_DATA)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_json_that_can_not_be_kept_as_it_is_is_refused(
    http: httpx.Client, session: dict, method: str, data: bytes
) -> None:
    path = f"{API}/sessions" if method == "POST" else f"{API}/sessions/{session['id']}"
    content = with_data(data) if method == "POST" else b'{"data":' + data + b"}"
    headers = {"Content-Type": "application/json"}
    assert_refused(http.request(method, path, content=content, headers=headers), 400, 422)


@pytest.mark.parametrize("content", NOT_JSON.values(), ids=NOT_JSON)
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/sessions"), ("POST", "/auth/login"), ("POST", "/users"), ("PATCH", "/tenant")],
    ids=str,
)
def test_what_is_not_json_is_refused(http: httpx.Client, method: str, path: str, content: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    assert_refused(http.request(method, API + path, content=content, headers=headers), 400, 422)


@pytest.mark.parametrize("body", WRONG_BODIES.values(), ids=WRONG_BODIES)
def test_a_session_of_the_wrong_shape_is_refused(http: httpx.Client, body: object) -> None:
    assert_refused(http.post(f"{API}/sessions", json=body), 413, 422)


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/xml",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonp",
        "application/octet-stream",
        "",
        "application/json/json",
        ";" * 200,
    ],
)
def test_another_content_type_is_refused(http: httpx.Client, content_type: str) -> None:
    body = json.dumps({"type": "temp_data", "data": {}}).encode()
    response = http.post(f"{API}/sessions", content=body, headers={"Content-Type": content_type})
    assert_refused(response, 415)


@pytest.mark.parametrize("session_id", IDS)
@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "PATCH"])
def test_an_id_that_can_not_exist_does_not_exist(http: httpx.Client, method: str, session_id: str) -> None:
    path = session_id if "%" in session_id else quote(session_id)
    response = http.request(method, f"{API}/sessions/{path}", json={"data": {}} if method[0] == "P" else None)
    assert_refused(response, 404, 405, 422)


@pytest.mark.parametrize("path", ["/users/{}", "/auth/sessions/{}", "/api-keys/{}"])
@pytest.mark.parametrize("other", IDS)
def test_nor_does_it_anywhere_else(http: httpx.Client, path: str, other: str) -> None:
    there = path.format(other if "%" in other else quote(other))
    assert_refused(http.request("DELETE", API + there), 404, 405, 422)


@pytest.mark.parametrize("cursor", CURSORS)
@pytest.mark.parametrize("path", ["/sessions", "/users"])
def test_a_cursor_nobody_was_given_is_refused_or_leads_nowhere(
    http: httpx.Client, path: str, cursor: str
) -> None:
    given = cursor if "%" in cursor else quote(cursor)
    response = http.get(f"{API}{path}?cursor={given}")
    if response.status_code != 200:
        assert_refused(response, 422)


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=-1", "limit=101", "limit=1e3", "limit=NaN", "limit=", "limit=9" * 50]
)
@pytest.mark.parametrize("path", ["/sessions", "/users"])
def test_a_page_size_out_of_range_is_refused(http: httpx.Client, path: str, query: str) -> None:
    assert_refused(http.get(f"{API}{path}?{query}"), 422)


@pytest.mark.parametrize(
    "query", ["type=root", "type[$ne]=x", "type=%00", "extend=maybe", "type=" + "x" * 5000]
)
def test_a_query_that_makes_no_sense_is_refused_or_ignored(http: httpx.Client, query: str) -> None:
    response = http.get(f"{API}/sessions?{query}")
    if response.status_code != 200:
        assert_refused(response, 422)


@pytest.mark.parametrize(
    "if_match",
    ['"', '"x"', "1", 'W/"1"', '"1', '"1", "', "*, *", '"' + "9" * 400 + '"', '""', '"-1"', '"1.0"', '"٣"'],
)
def test_an_if_match_that_names_no_version_is_refused(
    http: httpx.Client, session: dict, if_match: str
) -> None:
    headers = {"If-Match": if_match.encode()}
    body = {"data": {"kept": 2}}
    response = http.patch(f"{API}/sessions/{session['id']}", json=body, headers=headers)
    assert_refused(response, 400, 412, 422)


@pytest.mark.parametrize("version", [0, -1, 2, 2**63, 1.5, "1", True, [1], {"$gt": 0}])
def test_a_version_that_is_not_the_current_one_is_refused(
    http: httpx.Client, session: dict, version: object
) -> None:
    body = {"data": {"kept": 2}, "version": version}
    assert_refused(http.patch(f"{API}/sessions/{session['id']}", json=body), 409, 422)


@pytest.mark.parametrize(
    ("email", "password"),
    [
        ({"$ne": ""}, {"$ne": ""}),
        ({"$gt": ""}, PASSWORD),
        (["a@example.com"], PASSWORD),
        ("a@example.com", 12345678901),
        ("a@example.com", ["x" * 20]),
        ("a@example.com", None),
        ("not an address", PASSWORD),
        ("a@" + "x" * 5000 + ".com", PASSWORD),
        ("a@example.com", "x" * 100_000),
        ("a@example.com\0", PASSWORD),
        ("a@example.com\r\nBcc: b@example.com", PASSWORD),
        ("🚚@🚚.🚚", PASSWORD),
        ("a@exa\u202emple.com", PASSWORD),
    ],
)
@pytest.mark.parametrize("path", ["/auth/login", "/auth/register"])
def test_a_login_that_makes_no_sense_is_refused(
    target: Replica, path: str, email: object, password: object
) -> None:
    body: dict[str, object] = {"email": email, "password": password}
    if path == "/auth/register":
        body |= {"name": "Eve", "company": "Evil"}
    assert_refused(httpx.post(target.url + API + path, json=body, timeout=30), 401, 422)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "cfr_",
        "cfr_lgn_0.1.x.y",
        "x" * 5000,
        "cfr_" + string.printable[:90],
        {"$ne": 1},
        7,
        None,
        "\0",
    ],
)
def test_a_refresh_token_nobody_was_given_refreshes_nothing(target: Replica, token: object) -> None:
    body = {"refresh_token": token}
    assert_refused(httpx.post(f"{target.url}{API}/auth/refresh", json=body, timeout=30), 401, 422)
