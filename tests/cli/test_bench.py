"""`./cargoflow bench` as a person or a program runs it. No figure is judged here: machines differ."""

import json
import os
import signal
import subprocess
from io import StringIO
from pathlib import Path

import psutil
from rich.console import Console

from app.cli.bench import _table
from bench.measure import Sample
from bench.report import Plan, Report, Result, Round
from bench.scenario import load_scenario, scenario_names
from tests.cluster.harness import REPOSITORY, wait_until

TIMEOUT_S = 240


def bench(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [str(REPOSITORY / "cargoflow"), "bench", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_one_short_round_prints_the_document_with_every_figure(tmp_path: Path) -> None:
    run = bench(
        *("--scenario", "health", "--rounds", "1", "--seconds", "1", "--replicas", "1"),
        *("--connections", "4", "--users", "4", "--data", str(tmp_path), "--json"),
    )
    output, progress = run.communicate(timeout=TIMEOUT_S)
    assert run.returncode == 0, progress
    document = json.loads(output)
    assert document["plan"] == {
        "scenarios": ["health"],
        "rounds": 1,
        "seconds": 1,
        "connections": 4,
        "users": 4,
        "replicas": 1,
    }
    assert document["steady"] is document["reviewers"] is None
    assert list(document["scenarios"]) == ["health"]
    health = document["scenarios"]["health"]
    for measured in (health, health["floor"]):
        assert measured["errors"] == 0
        assert measured["requests_per_s"] > 0
        assert measured["cpu_s_per_1000"] > 0
        assert 0 < measured["p50_ms"] <= measured["p95_ms"] <= measured["p99_ms"]
    assert health["ratios"] == [health["ratio"]]
    assert "round 1 of 1" in progress
    assert nothing_runs_in(tmp_path)


def test_eighty_columns_show_every_figure_whole() -> None:
    slow = Sample(
        requests_per_s=12345.6, p50_ms=1234.5, p95_ms=99.9, p99_ms=9999.9, errors=1234, cpu_ms=12.345
    )
    plan = Plan(scenario_names(), rounds=1, seconds=1, connections=64, users=100, replicas=3)
    results = [Result(load_scenario(name), [Round(slow, slow)]) for name in plan.scenarios]
    out = Console(width=80, file=StringIO())
    out.print(_table(Report(plan, results, steady=None, reviewers=None), "Medians"))
    assert isinstance(out.file, StringIO)
    shown = out.file.getvalue()
    assert "…" not in shown
    for result in results:
        bar = "" if result.scenario.bar is None else f"≤ {result.scenario.bar:g}"
        row = f"{result.scenario.name} 12,346 1234 99.9 10000 1234 12.345 1.00 {bar}".strip()
        assert row in [" ".join(line.split()) for line in shown.splitlines()]


def test_an_interrupted_run_leaves_nothing_running(tmp_path: Path) -> None:
    # tests that a shell runs in the background ignore it, and so would whatever they start
    signal.signal(signal.SIGINT, signal.default_int_handler)
    run = bench("--scenario", "health", "--data", str(tmp_path), "--replicas", "1")
    log = tmp_path / "bench" / "logs" / "supervisor.log"
    wait_until(lambda: log.exists() and "round 1 of 5" in log.read_text(), timeout_s=TIMEOUT_S)
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=TIMEOUT_S)
    assert run.returncode != 0
    assert nothing_runs_in(tmp_path)


def test_a_scenario_that_does_not_exist_is_refused_with_the_names_of_those_that_do() -> None:
    run = bench("--scenario", "nothing")
    _, said = run.communicate(timeout=TIMEOUT_S)
    assert run.returncode == 1
    assert all(name in said for name in (*scenario_names(), "reviewers", "steady"))


def nothing_runs_in(folder: Path) -> bool:
    """Say whether no process works in the folder or was told of it."""
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and any(str(folder) in word for word in process.cmdline()):
                return False
            if Path(process.cwd()).is_relative_to(folder):
                return False
        except (psutil.Error, OSError):
            continue
    return True
