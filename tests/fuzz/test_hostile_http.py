"""What is hardly HTTP any more, or has no business being asked, is refused or cut off, and breaks nothing.

Sent as bytes over a socket, since no client library would.
"""

import socket

import httpx
import pytest

from tests.engines import Replica

API = "/api/v1"
MB = 1024 * 1024
CLOSE = b"Host: x\r\nConnection: close"


@pytest.mark.parametrize("size", [MB + 1, 50 * MB])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_refused(
    target: Replica, admin_token: str, size: int, chunked: bool
) -> None:
    """The answer may come while the body is still on its way; what counts is that it is this one."""
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
    head = (
        f"POST {API}/sessions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {admin_token}\r\n"
        f"Content-Type: application/json\r\n{framing}\r\n\r\n"
    )
    piece = b"x" * 65536
    with socket.create_connection(("127.0.0.1", target.port), timeout=30) as connection:
        connection.sendall(head.encode())
        sent = 0
        try:
            while sent < size:
                connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                sent += len(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert b" 413 " in connection.recv(4096).split(b"\r\n")[0]


UNSIGNED = "eyJhbGciOiJub25lIn0.eyJzaWQiOiJ4Iiwic3ViIjoieCIsInRpZCI6IngiLCJleHAiOjk5OTk5OTk5OTl9."
"""A token whose header says that it needs no signature."""
CREDENTIALS = (
    {"Authorization": "Bearer"},
    {"Authorization": "Bearer "},
    {"Authorization": "Basic YTpi"},
    {"Authorization": "Bearer a.b.c"},
    {"Authorization": "Bearer " + "x" * 4000},
    {"Authorization": f"Bearer {UNSIGNED}"},
    {"Authorization": "Bearer ....", "X-API-Key": "key_x.y"},
    {"X-API-Key": ""},
    {"X-API-Key": "."},
    {"X-API-Key": "key_0000000000000000000000.secret"},
    {"X-API-Key": "x" * 5000},
    {"X-API-Key": "key_*.x"},
    {"Authorization": "Bearer \xff\xfe"},
    {"Cookie": "cf_refresh=x; " * 50},
    {"Authorization": "bearer\tx"},
)


@pytest.mark.parametrize("credential", CREDENTIALS, ids=range(len(CREDENTIALS)))
def test_a_credential_nobody_was_given_opens_nothing(target: Replica, credential: dict[str, str]) -> None:
    lines = [f"{name}: {value}".encode("latin-1") for name, value in credential.items()]
    status, text = raw(target, f"GET {API}/auth/me HTTP/1.1".encode(), *lines, CLOSE)
    assert status == 401, text
    assert "application/problem+json" in text


PATHS = (
    "/api/v1/../../etc/passwd",
    "/api/v1/%2e%2e/%2e%2e/etc/passwd",
    "/api/v1//sessions",
    "/api/v1/sessions/",
    "/api/v1/sessions/a/b/c",
    "/api/v2/sessions",
    "/api/v1/sessions%00",
    "/api/v1/sessions;a=b",
    "/api/v1/\\..\\sessions",
    "/API/V1/SESSIONS",
    "/api/v1/" + "a/" * 500,
    "/%ff%fe",
    "/docs/../app/main.py",
    "/docs/%2e%2e/%2e%2e/app/main.py",
    "/problems/../../x",
)


@pytest.mark.parametrize("path", PATHS)
def test_a_path_that_is_none_leads_nowhere(target: Replica, admin_token: str, path: str) -> None:
    authorization = f"Authorization: Bearer {admin_token}".encode()
    status, text = raw(target, f"GET {path} HTTP/1.1".encode(), authorization, CLOSE)
    assert status in {400, 404}
    assert "root:" not in text
    assert "def main" not in text


LOGIN = f"POST {API}/auth/login HTTP/1.1".encode()
HEALTH = b"GET /health HTTP/1.1"
CHUNKED = b"Transfer-Encoding: chunked"
RAW: dict[str, tuple[bytes, ...]] = {
    "an unknown method": (f"BREW {API}/sessions HTTP/1.1".encode(), CLOSE),
    "a nul in a header": (HEALTH, b"X-A: a\0b", CLOSE),
    "a header without a name": (HEALTH, b": a", CLOSE),
    "a header without a colon": (HEALTH, b"nonsense", CLOSE),
    "100 KB of headers": (HEALTH, b"X-A: " + b"a" * 100_000, CLOSE),
    "2000 headers": (HEALTH, *(b"X-%d: a" % n for n in range(2000)), CLOSE),
    "a length that is no number": (LOGIN, b"Content-Length: ten", CLOSE),
    "a length below zero": (LOGIN, b"Content-Length: -1", CLOSE),
    "two lengths": (LOGIN, b"Content-Length: 2", b"Content-Length: 3", CLOSE),
    "a length and chunks": (LOGIN, b"Content-Length: 2", CHUNKED, CLOSE),
    "chunks of no size": (LOGIN, CHUNKED, CLOSE, b"", b"zz"),
    "no http at all": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200,),
    "http/3.0": (b"GET /health HTTP/3.0", CLOSE),
    "a proxy's request line": (b"GET http://evil.example/health HTTP/1.1", CLOSE),
    "a star": (b"OPTIONS * HTTP/1.1", CLOSE),
    "connect": (b"CONNECT evil.example:443 HTTP/1.1", CLOSE),
    "an id with a line break": (HEALTH, b"X-Request-ID: a\r\n b", CLOSE),
    "no host": (HEALTH, b"Connection: close"),
}


@pytest.mark.parametrize("lines", RAW.values(), ids=RAW)
def test_what_is_hardly_http_is_refused_or_cut_off_and_never_a_server_error(
    target: Replica, lines: tuple[bytes, ...]
) -> None:
    status, _ = raw(target, *lines)
    assert status is None or status < 500


def test_a_request_id_that_is_not_well_formed_is_replaced(target: Replica) -> None:
    for given in ("short", "x" * 65, "has space in it", "semi;colon;semi", "<script>alert(1)</script>"):
        response = httpx.get(f"{target.url}/health", headers={"X-Request-ID": given}, timeout=30)
        assert response.headers["x-request-id"] != given
    good = "a-good.one_0123"
    assert (
        httpx.get(f"{target.url}/health", headers={"X-Request-ID": good}, timeout=30).headers["x-request-id"]
        == good
    )


def raw(target: Replica, *lines: bytes) -> tuple[int | None, str]:
    """Send these lines as a request; return the status of the answer, if one came, and its text."""
    with socket.create_connection(("127.0.0.1", target.port), timeout=10) as connection:
        connection.sendall(b"\r\n".join([*lines, b"", b""]))
        answer = b""
        try:
            while piece := connection.recv(65536):
                answer += piece
        except ConnectionResetError:
            pass
    words = answer.split(b" ", 2)
    return (int(words[1]) if len(words) > 1 else None), answer.decode(errors="replace")
