"""What every request gets: an id, an address, headers, a log line, a metric, and never an exception."""

import logging
import re

import httpx
import pytest

from app.core.logging import redact
from app.http.application import Api
from tests.http.conftest import Connect, Lines


async def test_a_well_formed_request_id_is_kept(sample: httpx.AsyncClient) -> None:
    response = await sample.get("/api/v1/samples", headers={"X-Request-ID": "order-4711.retry_2"})
    assert response.headers["x-request-id"] == "order-4711.retry_2"


@pytest.mark.parametrize(
    "given", ["short", "x" * 65, "with space in it", 'quote"quote"quote', "ümlaut-ümlaut", ""]
)
async def test_any_other_request_id_is_replaced(given: str, sample: httpx.AsyncClient) -> None:
    response = await sample.get("/api/v1/samples", headers=[(b"X-Request-ID", given.encode())])
    assert re.fullmatch(r"[0-9a-f]{32}", response.headers["x-request-id"])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/samples", 200),
        ("GET", "/nowhere", 404),
        ("PATCH", "/api/v1/samples", 405),
        ("OPTIONS", "/api/v1/samples", 204),
        ("POST", "/api/v1/samples", 422),
        ("GET", "/api/v1/samples/broken", 500),
        ("GET", "/health", 200),
    ],
)
async def test_every_response_says_who_answered_what_and_how_fast(
    method: str, path: str, status: int, sample: httpx.AsyncClient
) -> None:
    response = await sample.request(method, path)
    assert response.status_code == status
    assert response.headers["x-replica"] == "replica-sample"
    assert float(response.headers["x-response-time"]) >= 0
    assert len(response.headers.get_list("x-request-id")) == 1
    if status >= 400:
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["request_id"] == response.headers["x-request-id"]


@pytest.mark.parametrize(
    ("peer", "forwarded", "believed"),
    [
        ("203.0.113.9", None, "203.0.113.9"),
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),  # a stranger says who it is
        ("127.0.0.1", "198.51.100.1", "127.0.0.1"),  # loopback is not trusted by itself
        ("10.1.2.3", "198.51.100.1", "198.51.100.1"),
        ("10.1.2.3", "6.6.6.6, 198.51.100.1", "198.51.100.1"),  # what the client wrote comes first
        ("10.1.2.3", "198.51.100.1, not-an-address", "10.1.2.3"),
        ("10.1.2.3", "", "10.1.2.3"),
        ("10.2.0.1", "198.51.100.1", "10.2.0.1"),  # just outside of 10.1.0.0/16
        ("fd00::1", "2001:DB8::0:1", "2001:db8::1"),
        ("10.1.2.3", "::ffff:198.51.100.1", "198.51.100.1"),
    ],
)
async def test_forwarded_addresses_are_believed_from_trusted_peers_only(
    peer: str, forwarded: str | None, believed: str, connect: Connect
) -> None:
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    response = await connect(peer).get("/api/v1/samples/whoami", headers=headers)
    assert response.json() == {"ip": believed}


async def test_of_several_forwarded_headers_the_last_is_believed(connect: Connect) -> None:
    headers = [("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-For", "198.51.100.1")]
    response = await connect("10.1.2.3").get("/api/v1/samples/whoami", headers=headers)
    assert response.json() == {"ip": "198.51.100.1"}


async def test_the_access_line_names_the_template_and_the_caller_and_no_secrets(
    sample: httpx.AsyncClient, logs: Lines
) -> None:
    secrets_sent = {"Authorization": "Bearer eyJhbGciOi.eyJzdWIi.c2ln", "Cookie": "cf_refresh=topsecret"}
    await sample.get(
        "/api/v1/samples/whoami?ticket=topsecret", headers={"X-Request-ID": "req-12345678", **secrets_sent}
    )
    line = logs.named("request")[-1]
    assert line["request_id"] == "req-12345678"
    assert line["user_id"] == "usr_1"
    assert line["tenant_id"] == "ten_1"
    assert line["replica"] == "replica-sample"
    assert (line["method"], line["template"], line["status"]) == ("GET", "/api/v1/samples/whoami", 200)
    assert line["path"] == "/api/v1/samples/whoami"
    assert line["ip"] == "127.0.0.1"
    assert line["ms"] >= 0
    everything = b"\n".join(logs.text)
    for secret in (b"topsecret", b"eyJhbGciOi", b"hunter2", b"abcdefghijkl"):
        assert secret not in everything


async def test_a_line_logged_inside_a_request_carries_its_id(sample: httpx.AsyncClient, logs: Lines) -> None:
    await sample.get("/api/v1/samples/whoami", headers={"X-Request-ID": "req-12345678"})
    line = logs.named("asked")[0]
    assert line["request_id"] == "req-12345678"
    assert line["password"] == "[redacted]"
    assert line["note"] == "Bearer [redacted]"


async def test_after_the_request_nothing_of_it_is_left_in_the_context(
    sample: httpx.AsyncClient, logs: Lines
) -> None:
    await sample.get("/api/v1/samples/whoami")
    logging.getLogger("sample").info("outside")
    assert "request_id" not in logs.named("outside")[0]


async def test_an_unknown_error_is_a_500_without_its_message_and_logged_with_it(
    sample: httpx.AsyncClient, logs: Lines
) -> None:
    response = await sample.get("/api/v1/samples/broken")
    assert response.status_code == 500
    assert response.json()["code"] == "internal_error"
    assert "secret-detail" not in response.text
    line = logs.named("unhandled_error")[0]
    assert "ZeroDivisionError: secret-detail" in line["exception"]
    assert line["request_id"] == response.headers["x-request-id"]


async def test_a_client_that_left_is_no_error(sample_app: Api, logs: Lines) -> None:
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/api/v1/samples/gone",
        "query_string": b"",
        "headers": [],
        "client": ("127.0.0.1", 1),
    }

    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def send(message: object) -> None:
        raise AssertionError(message)

    await sample_app(scope, receive, send)
    assert logs.named("unhandled_error") == []
    assert logs.named("request")[0]["status"] == 499


async def test_headers_left_by_a_dependency_are_on_problems_too(sample: httpx.AsyncClient) -> None:
    response = await sample.get("/api/v1/samples/forbidden")
    assert response.status_code == 403
    assert response.headers["ratelimit"] == '"sample";r=1;t=2'


async def test_metrics_know_templates_and_never_paths(sample: httpx.AsyncClient) -> None:
    for number in range(3):
        await sample.get(f"/api/v1/samples/sample-{number}")
    await sample.get("/nowhere/sample-4")
    text = (await sample.get("/metrics")).text
    assert (
        'cargoflow_http_requests_total{method="GET",status="2xx",template="/api/v1/samples/{sample_id}"} 3.0'
        in text
    )
    assert 'cargoflow_http_requests_total{method="GET",status="4xx",template="unmatched"} 1.0' in text
    assert "sample-" not in text
    assert "cargoflow_http_in_flight 1.0" in text  # this very request


async def test_a_made_up_method_does_not_become_a_label(sample: httpx.AsyncClient) -> None:
    assert (await sample.request("BREW", "/api/v1/samples")).status_code == 405
    text = (await sample.get("/metrics")).text
    assert "BREW" not in text
    assert 'method="OTHER"' in text


async def test_the_same_prebuilt_response_does_not_gather_headers(sample: httpx.AsyncClient) -> None:
    for _ in range(3):
        response = await sample.get("/health")
    assert len(response.headers.get_list("x-replica")) == 1


@pytest.mark.settings(cors_origin=("https://app.example.com",))
async def test_cors_lets_the_named_origin_read_answers_and_problems(sample: httpx.AsyncClient) -> None:
    origin = {"Origin": "https://app.example.com"}
    preflight = {
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": "if-match,idempotency-key",
    }
    response = await sample.options("/api/v1/samples", headers=origin | preflight)
    assert response.status_code == 200
    assert response.headers["access-control-allow-credentials"] == "true"
    for path in ("/api/v1/samples", "/nowhere", "/api/v1/samples/broken"):
        response = await sample.get(path, headers=origin)
        assert response.headers["access-control-allow-origin"] == "https://app.example.com"
        assert "X-Request-ID" in response.headers["access-control-expose-headers"]
    response = await sample.get("/api/v1/samples", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in response.headers


async def test_without_a_setting_there_is_no_cors(sample: httpx.AsyncClient) -> None:
    response = await sample.get("/api/v1/samples", headers={"Origin": "https://app.example.com"})
    assert "access-control-allow-origin" not in response.headers


def test_what_looks_like_a_credential_is_redacted_wherever_it_stands() -> None:
    line = (
        b'{"a":"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl","b":"mongodb://user:pa55@host/db",'
        b'"c":"key_4TFxkKkkkkkkkkkkkkkkkk.s3cret-part","d":"bearer abcdefghijklmnop",'
        b'"e":"cfr_lgn_4TFxkKkk.1.refr3sh-p4rt.x"}'
    )
    for secret in (b"c2lnbmF0dXJl", b"pa55", b"s3cret", b"abcdefghijklmnop", b"refr3sh-p4rt"):
        assert secret not in redact(line)
    assert b"host/db" in redact(line)
