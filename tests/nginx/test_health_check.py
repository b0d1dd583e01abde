"""`health_check.sh` before clusters that are well and clusters that are not."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.nginx.edge import Edge, running_edge
from tests.nginx.peer import Answer, Received, json_answer

SCRIPT = Path(__file__).parents[2] / "health_check.sh"
READY = {
    "replica": "peer",
    "checks": {
        "mongo": {"status": "pass", "age_ms": 12, "latency_ms": 0.4, "pool": {"max": 50, "min": 5}},
        "redis": {"status": "pass", "age_ms": 7},
    },
    "status": "pass",
}


def make_well(edge: Edge) -> None:
    for peer in edge.peers:
        peer.answers = {
            "/ready": json_answer(READY),
            "/metrics": Answer(200, (), b"# HELP cargoflow_requests_total n\ncargoflow_requests_total 3\n"),
            "/cache-stats": json_answer({"hits": 1}),
        }
        peer.handlers["/api/v1/there-is-no-such-path"] = _unknown_path


async def _unknown_path(
    request: Received, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    body = json.dumps(
        {"status": 404, "code": "not_found", "request_id": request.header("x-request-id")}
    ).encode()
    head = (
        "HTTP/1.1 404 Not Found",
        "content-type: application/problem+json",
        f"content-length: {len(body)}",
        "",
        "",
    )
    writer.write("\r\n".join(head).encode() + body)


async def run(*arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        str(SCRIPT), *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, output.decode()


async def run_json(edge: Edge, *arguments: str) -> tuple[int, dict[str, Any]]:
    code, output = await run(f"http://localhost:{edge.port}", "--json", *arguments)
    return code, json.loads(output)


def failures(report: dict[str, Any]) -> list[str]:
    return [check["name"] for check in report["checks"] if not check["ok"]]


async def test_a_healthy_cluster_passes_with_one_line_a_check(tmp_path: Path) -> None:
    async with running_edge(tmp_path, peers=3) as edge:
        make_well(edge)
        code, output = await run(f"http://localhost:{edge.port}/")
        _, report = await run_json(edge, "--replicas", "3")
    names = [
        "liveness",
        "readiness",
        "ready: mongo",
        "ready: redis",
        "replicas",
        "metrics",
        "cache",
        "errors",
    ]
    assert (code, report["ok"], [check["name"] for check in report["checks"]]) == (0, True, names)
    lines = output.splitlines()
    assert lines[-1] == "All checks pass."
    assert all(line.startswith("✓ ") for line in lines[1:-1])
    assert "3 seen: peer-1, peer-2, peer-3" in output
    assert "\033" not in output


async def test_each_thing_that_is_wrong_fails_its_own_check(tmp_path: Path) -> None:
    async with running_edge(tmp_path, peers=2) as edge:
        for name, path, answer in (
            ("liveness", "/health", Answer(503)),
            ("metrics", "/metrics", Answer(200, (), b"python_gc_total 1\n")),
            ("cache", "/cache-stats", Answer(200, (), b"<html>")),
        ):
            make_well(edge)
            for peer in edge.peers:
                peer.answers[path] = answer
            code, report = await run_json(edge)
            assert (code, report["ok"], failures(report)) == (1, False, [name])

        make_well(edge)
        for peer in edge.peers:
            peer.handlers = {}
        code, report = await run_json(edge)
        assert (code, failures(report)) == (1, ["errors"])


@pytest.mark.parametrize("state", ["warn", "fail"])
async def test_a_dependency_that_is_not_well_fails_the_check(tmp_path: Path, state: str) -> None:
    checks = READY["checks"] | {"redis": {"status": state, "age_ms": 9, "detail": 'says "no"'}}  # type: ignore[operator]
    async with running_edge(tmp_path, peers=2) as edge:
        make_well(edge)
        for peer in edge.peers:
            body = json.dumps({"status": state, "checks": checks}, indent=2).encode()
            peer.answers["/ready"] = Answer(200 if state == "warn" else 503, (), body)
        code, report = await run_json(edge)
    assert (code, failures(report)) == (1, ["readiness", "ready: redis"])


async def test_too_few_replicas_are_told(tmp_path: Path) -> None:
    async with running_edge(tmp_path, peers=2) as edge:
        make_well(edge)
        code, report = await run_json(edge, "--replicas=3")
        assert (code, failures(report)) == (1, ["replicas"])
        await edge.peers[0].stop()
        code, report = await run_json(edge)
        assert (code, failures(report)) == (1, ["replicas"])
        assert [c["detail"] for c in report["checks"] if c["name"] == "replicas"] == [
            "1 seen, at least 2 expected: peer-2"
        ]


async def test_where_nothing_listens_every_check_fails_and_says_why(tmp_path: Path) -> None:
    async with running_edge(tmp_path) as edge:
        gone = edge.port
    code, output = await run(f"http://127.0.0.1:{gone}", "--json")
    report = json.loads(output)
    assert (code, report["ok"]) == (1, False)
    assert not any(check["ok"] for check in report["checks"])
    assert "connect" in report["checks"][0]["detail"]


async def test_help_teaches_and_wrong_usage_is_2() -> None:
    assert await run("--help") == (0, (await run("-h"))[1])
    assert "Usage: ./health_check.sh" in (await run("--help"))[1]
    for arguments in (("--replicas",), ("--replicas", "x"), ("--replicas", "0"), ("nonsense",)):
        code, output = await run(*arguments)
        assert (code, output.count("\n")) == (2, 1)
