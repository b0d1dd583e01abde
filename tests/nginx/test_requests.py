"""What Nginx lets in, and what it makes of a request before a replica sees it."""

import asyncio
import contextlib
import ipaddress
import re
import socket
from pathlib import Path

import httpx
import pytest

from tests.nginx.edge import Edge, eventually, running_edge
from tests.nginx.peer import Answer, echo_websocket

WELL_FORMED = ["12345678", "order_7.retry-2", "a" * 64]
MALFORMED = ["short", "a" * 65, "has space in it", 'quote"quote"quote', "", "ünïcödé-id"]


@pytest.mark.parametrize("given", WELL_FORMED)
async def test_a_well_formed_request_id_is_kept(edge: Edge, given: str) -> None:
    answer = await edge.client.get("/api/v1/x", headers={"X-Request-ID": given})
    assert edge.peers[0].received[-1].headers["x-request-id"] == [given]
    assert answer.headers.get_list("X-Request-ID") == [given]


@pytest.mark.parametrize("given", MALFORMED)
async def test_a_malformed_request_id_is_replaced(edge: Edge, given: str) -> None:
    answer = await edge.client.get("/api/v1/x", headers={"X-Request-ID": given.encode()})
    [passed_on] = edge.peers[0].received[-1].headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{32}", passed_on)
    assert answer.headers.get_list("X-Request-ID") == [passed_on]


async def test_two_request_ids_are_none(edge: Edge) -> None:
    headers = [("X-Request-ID", "first-one"), ("X-Request-ID", "second-one")]
    await edge.client.get("/api/v1/x", headers=headers)
    [passed_on] = edge.peers[0].received[-1].headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{32}", passed_on)


async def test_what_a_client_claims_about_its_address_is_dropped(edge: Edge) -> None:
    claims = {
        "X-Forwarded-For": "203.0.113.9",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Port": "1",
        "X-Forwarded-Prefix": "/evil",
        "X-Real-IP": "203.0.113.9",
        "Forwarded": "for=203.0.113.9",
        "Proxy": "http://evil.example",
    }
    await edge.client.get("/api/v1/x", headers=claims)
    received = edge.peers[0].received[-1].headers
    assert received["x-forwarded-for"] == ["127.0.0.1"]
    assert received["host"] == [f"127.0.0.1:{edge.port}"]
    gone = {"x-forwarded-host", "x-forwarded-port", "x-forwarded-prefix", "x-real-ip", "forwarded", "proxy"}
    assert not gone & received.keys()


async def test_the_scheme_of_a_terminator_on_a_private_network_is_passed_on(edge: Edge) -> None:
    answer = await edge.client.get("/api/v1/x", headers={"X-Forwarded-Proto": "https"})
    assert edge.peers[0].received[-1].headers["x-forwarded-proto"] == ["https"]
    assert "max-age=" in answer.headers["Strict-Transport-Security"]

    answer = await edge.client.get("/api/v1/x")
    assert edge.peers[0].received[-1].headers["x-forwarded-proto"] == ["http"]
    assert "Strict-Transport-Security" not in answer.headers


async def test_credentials_and_the_query_reach_the_replica_untouched(edge: Edge) -> None:
    await edge.client.get(
        "/api/v1/x%20y?cursor=a%2Fb", headers={"Authorization": "Bearer t", "Cookie": "a=1"}
    )
    received = edge.peers[0].received[-1]
    assert received.target == "/api/v1/x%20y?cursor=a%2Fb"
    assert (received.header("authorization"), received.header("cookie")) == ("Bearer t", "a=1")


async def test_a_weakened_etag_is_made_strong_again_in_if_match(edge: Edge) -> None:
    await edge.client.patch("/api/v1/x", headers={"If-Match": 'W/"3"'})
    await edge.client.patch("/api/v1/x", headers={"If-Match": '"3"'})
    await edge.client.patch("/api/v1/x", headers={"If-Match": "*"})
    assert [one.header("if-match") for one in edge.peers[0].received] == ['"3"', '"3"', "*"]


async def test_replicas_see_the_source_address_they_were_told_to_trust(tmp_path: Path) -> None:
    async with running_edge(tmp_path, proxy_bind="127.0.0.2") as edge:
        await edge.client.get("/api/v1/x")
        assert edge.peers[0].sources == {"127.0.0.2"}


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "192.0.2.1"])
async def test_an_unknown_host_is_refused_and_reaches_no_replica(edge: Edge, host: str) -> None:
    answer = await edge.client.get("/api/v1/x", headers={"Host": host})
    assert answer.status_code == 421
    assert answer.json()["code"] == "misdirected_request"
    assert not edge.peers[0].received


@pytest.mark.parametrize("host", ["localhost", "localhost:9999", "127.0.0.1", "[::1]:8080", "LOCALHOST"])
async def test_the_clusters_own_hosts_are_answered(edge: Edge, host: str) -> None:
    answer = await edge.client.get("/api/v1/x", headers={"Host": host})
    assert answer.status_code == 200
    assert edge.peers[0].received[-1].header("host") == host.lower()


async def test_the_ipv6_loopback_is_answered_where_there_is_one(edge: Edge) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"http://[::1]:{edge.port}/health")).status_code == 200


async def test_a_websocket_is_passed_through_both_ways_and_its_ticket_is_not_logged(edge: Edge) -> None:
    edge.peers[0].handlers["/ws"] = echo_websocket
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    writer.write(
        b"GET /ws?ticket=tkt_secret HTTP/1.1\r\nHost: localhost\r\n"
        b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    assert head.startswith("HTTP/1.1 101 ")
    assert "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
    for message in (b"ping", b"pong"):
        writer.write(message)
        assert await reader.readexactly(4) == message
    writer.close()
    assert edge.peers[0].received[-1].target == "/ws?ticket=tkt_secret"

    await edge.peers[0].stop()
    assert (await edge.client.get("/ws?ticket=tkt_secret")).status_code == 502
    await eventually(
        lambda: {line["status"] for line in edge.access_log() if line["path"] == "/ws"} == {101, 502}
    )
    assert "tkt_secret" not in edge.raw_log()


async def test_an_upgrade_is_passed_on_to_the_socket_alone(edge: Edge) -> None:
    await edge.client.get("/api/v1/x", headers={"Connection": "Upgrade", "Upgrade": "websocket"})
    assert not {"upgrade", "connection"} & edge.peers[0].received[-1].headers.keys()


async def test_the_log_tells_what_happened_without_the_query(edge: Edge) -> None:
    given = {"X-Request-ID": "logged-request"}
    await edge.client.get("/api/v1/x?token=hidden", headers=given | {"User-Agent": 'a "quoted" agent'})
    await edge.peers[0].stop()
    await edge.client.post("/api/v1/x?token=hidden", headers=given)
    await edge.client.get("/health")
    await eventually(lambda: len(edge.access_log()) == 3)
    first, second, third = edge.access_log()
    assert (first["method"], first["path"], first["status"]) == ("GET", "/api/v1/x", 200)
    assert (first["request_id"], first["user_agent"]) == ("logged-request", 'a "quoted" agent')
    assert (first["upstream"], first["upstream_status"]) == (f"127.0.0.1:{edge.peers[0].port}", "200")
    assert (second["method"], second["path"], second["status"]) == ("POST", "/api/v1/x", 502)
    assert (third["path"], third["status"]) == ("/health", 502)


async def test_answered_probes_are_not_logged(edge: Edge) -> None:
    for path in ("/health", "/ready", "/api/v1/x"):
        await edge.client.get(path)
    await eventually(lambda: len(edge.access_log()) > 0)
    assert [line["path"] for line in edge.access_log()] == ["/api/v1/x"]


async def test_a_client_beyond_its_rate_gets_429_with_retry_after(tmp_path: Path) -> None:
    async with running_edge(tmp_path, edge_limits=True) as edge:
        answers = await asyncio.gather(*(edge.client.get("/api/v1/bookings") for _ in range(120)))
        passed = [answer for answer in answers if answer.status_code == 200]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert len(passed) + len(refused) == 120
        assert len(passed) >= 21
        assert len(edge.peers[0].received) == len(passed)
        assert {(answer.json()["code"], answer.headers["Retry-After"]) for answer in refused} == {
            ("rate_limited", "1")
        }


async def test_chat_and_forecasts_have_limits_of_their_own(tmp_path: Path) -> None:
    async with running_edge(tmp_path, edge_limits=True) as edge:
        for path, at_once in (
            ("/api/v1/forecasts", 7),
            ("/api/v1/chat/sessions", 11),
            ("/api/v1/bookings", 21),
        ):
            answers = await asyncio.gather(*(edge.client.get(path) for _ in range(60)))
            passed = [answer.status_code for answer in answers].count(200)
            assert at_once <= passed < 60


async def test_probes_and_pages_are_not_limited(tmp_path: Path) -> None:
    async with running_edge(tmp_path, edge_limits=True) as edge:
        for path in ("/health", "/ready", "/metrics", "/cache-stats", "/", "/landing/landing.css"):
            answers = await asyncio.gather(*(edge.client.get(path) for _ in range(40)))
            assert {answer.status_code for answer in answers} == {200}


async def test_limits_are_off_when_told_so(edge: Edge) -> None:
    answers = await asyncio.gather(*(edge.client.get("/api/v1/bookings") for _ in range(120)))
    assert {answer.status_code for answer in answers} == {200}


async def test_metrics_are_for_private_networks(edge: Edge) -> None:
    edge.peers[0].answers["/metrics"] = Answer(200, (("content-type", "text/plain"),), b"cargoflow_up 1\n")
    assert (await edge.client.get("/metrics")).text == "cargoflow_up 1\n"

    public = _public_address()
    if public is None:
        pytest.skip("this machine has no address outside of the private networks to ask from")
    async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(local_address=public)) as stranger:
        answer = await stranger.get(f"http://127.0.0.1:{edge.port}/metrics")
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
        for method in ("PUT", "DELETE", "POST"):
            headers = {"Idempotency-Key": "k"}
            refused = await stranger.request(method, f"http://127.0.0.1:{edge.port}/metrics", headers=headers)
            assert refused.status_code == 403
        assert (await stranger.get(f"http://127.0.0.1:{edge.port}/health")).status_code == 200
    assert edge.peers[0].received[-1].header("x-forwarded-for") == public


@pytest.mark.parametrize(
    "target", ["//metrics", "/./metrics", "/x/../metrics", "/%6detrics", "/api/v1/../../metrics"]
)
async def test_no_spelling_of_metrics_gets_around_its_rule(edge: Edge, target: str) -> None:
    public = _public_address()
    if public is None:
        pytest.skip("this machine has no address outside of the private networks to ask from")
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port, local_addr=(public, 0))
    writer.write(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    assert answer.split(b" ")[1] == b"403"
    assert not edge.peers[0].received


def _public_address() -> str | None:
    """An address of this machine outside of the private networks; asking for it sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(("198.51.100.1", 9))
        address = str(probe.getsockname()[0])
        private = ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
        if not any(ipaddress.ip_address(address) in ipaddress.ip_network(network) for network in private):
            return address
    return None
