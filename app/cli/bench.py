"""bench: the load scenarios next to their floors, in one table."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from app.cli.terminal import CommandFailedError, console, progress

if TYPE_CHECKING:
    from bench.measure import Sample
    from bench.report import Plan, Report
    from bench.reviewers import Reviewers
    from bench.steady import Steady

_APT_TIMEOUT_S = 300

Scenarios = Annotated[
    list[str] | None,
    typer.Option(
        "--scenario", metavar="NAME", help="Only this one; may be repeated.", show_default="all of them"
    ),
]
Rounds = Annotated[
    int, typer.Option("--rounds", min=1, max=50, metavar="N", help="How often each is measured.")
]
Seconds = Annotated[
    int, typer.Option("--seconds", min=1, max=120, metavar="S", help="How long each measurement takes.")
]
Connections = Annotated[
    int, typer.Option("--connections", min=1, max=512, metavar="N", help="Connections that wrk keeps busy.")
]
Users = Annotated[
    int, typer.Option("--users", min=1, max=1000, metavar="N", help="Users behind the requests.")
]
Replicas = Annotated[
    int, typer.Option("--replicas", min=1, max=16, metavar="N", help="Replicas, and processes of a floor.")
]
BenchData = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="Keep the cluster's data and logs in DIR/bench, which is emptied first.",
        show_default="a temporary folder",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document for programs.")]


def bench(
    *,
    scenario: Scenarios = None,
    rounds: Rounds = 5,
    seconds: Seconds = 5,
    connections: Connections = 64,
    users: Users = 100,
    replicas: Replicas = 3,
    data: BenchData = None,
    as_json: Json = False,
) -> None:
    """Measure what requests cost, each next to the least that such a request could cost on this machine.

    Starts a cluster of its own with raised limits, loads it through Nginx with wrk (installed with apt-get
    where that can be done), and prints medians. The figure that counts is the last: CPU-seconds of the
    replicas a thousand requests as a multiple of the floor's. bench/README.md tells how to read it. Ctrl-C
    stops everything.

    Example: ./cargoflow bench --scenario session_read --rounds 3
    """
    from bench.report import Plan  # noqa: PLC0415  # brings the stores' clients along: only for who needs them

    names = _chosen(scenario or [])
    if connections > users:
        raise CommandFailedError("there must be at least as many users as connections")
    plan = Plan(names, rounds, seconds, connections, users, replicas)
    out = console(stderr=as_json)
    with _folder(data) as folder:
        report = _measured(plan, folder, out)
    if as_json:
        sys.stdout.write(json.dumps(report.document(), indent=2) + "\n")
    else:
        _show(out, report)


def _chosen(wanted: list[str]) -> list[str]:
    from bench.reviewers import NAME as REVIEWERS  # noqa: PLC0415
    from bench.scenario import scenario_names  # noqa: PLC0415  # as above
    from bench.steady import NAME as STEADY  # noqa: PLC0415

    names = [*scenario_names(), REVIEWERS, STEADY]
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise CommandFailedError(f"there is no scenario {unknown[0]}; there are {', '.join(names)}")
    return [name for name in names if not wanted or name in wanted]


@contextlib.contextmanager
def _folder(data: Path | None) -> Iterator[Path]:
    if data is None:
        with tempfile.TemporaryDirectory(prefix="cargoflow-bench-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)
        return
    folder_asked_for = data.absolute() / "bench"
    if folder_asked_for.exists():
        shutil.rmtree(folder_asked_for)
    yield folder_asked_for


def _measured(plan: "Plan", folder: Path, out: Console) -> "Report":
    from app.cluster.events import Announcer  # noqa: PLC0415  # as above
    from app.cluster.failures import StartFailedError  # noqa: PLC0415
    from app.cluster.layout import Layout  # noqa: PLC0415
    from app.core.clock import SystemClock  # noqa: PLC0415
    from bench.measure import MeasurementError  # noqa: PLC0415
    from bench.run import run  # noqa: PLC0415

    layout, clock = Layout(folder), SystemClock()
    layout.prepare()
    with (
        progress(out) as shown,
        contextlib.closing(Announcer(layout.log("supervisor"), clock)) as announcer,
        announcer.heard_by(shown.hear),
    ):
        wrk = _wrk(out)
        try:
            return asyncio.run(_until_ended(run(plan, layout, wrk, announcer, clock)))
        except BaseExceptionGroup as group:  # the cluster's processes and the store's probes are task groups
            failure = _first_of(group)
            if isinstance(failure, StartFailedError):
                raise CommandFailedError(str(failure), failure.log_tail) from None
            if isinstance(failure, MeasurementError):
                raise CommandFailedError(str(failure)) from None
            raise


def _first_of(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _until_ended(work: "Coroutine[Any, Any, Report]") -> "Report":
    """Await the work, cancelled by SIGTERM and SIGHUP as by Ctrl-C, so that what it started is stopped."""
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    if task is not None:
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, task.cancel)
    return await work


def _wrk(out: Console) -> str:
    """Return the path of wrk, installing it where root can with apt-get."""
    found = shutil.which("wrk")
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        for arguments in (["update"], ["install", "--yes", "--no-install-recommends", "wrk"]):
            out.print(f"  [dim]… installing wrk: apt-get {arguments[0]}[/]")
            apt = subprocess.run(
                ["apt-get", "--quiet", *arguments],  # noqa: S607  # root's own PATH
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_APT_TIMEOUT_S,
                check=False,
            )
        found = shutil.which("wrk")
        if found is None:
            said = (apt.stdout + apt.stderr).splitlines()[-15:]
            raise CommandFailedError("apt-get could not install wrk", said)
    if found is None:
        raise CommandFailedError(
            "wrk is not installed: run 'sudo apt-get install wrk' (Debian, Ubuntu) or 'brew install wrk'"
        )
    return found


def _show(out: Console, report: "Report") -> None:
    plan = report.plan
    size = f"{plan.connections} connections, {plan.users} users, {plan.replicas} replicas"
    if report.results:
        title = f"Medians of {plan.rounds} rounds of {plan.seconds} s each; {size}"
        out.print(_table(report, title))
        out.print("Latencies in ms; CPU-seconds of all replicas a thousand requests, and as so many floors.")
    if report.reviewers is not None:
        _show_reviewers(out, report.reviewers)
    if report.steady is not None:
        _show_steady(out, report.steady)


def _table(report: "Report", title: str) -> Table:
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False
    )
    table.add_column("scenario", no_wrap=True)
    for heading in ("req/s", "p50", "p95", "p99", "errors", "CPU", "floors", "bar"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in report.results:
        scenario = result.scenario
        bar = "" if scenario.bar is None else f"≤ {scenario.bar:g}"
        ratio = _judged(f"{result.ratio:.2f}", good=scenario.bar is None or result.ratio <= scenario.bar)
        table.add_row(f"[bold]{scenario.name}[/]", *_cells(result.application), ratio, bar)
        table.add_row("  its floor", *_cells(result.floor), "1", "", style="dim")
    return table


def _cells(sample: "Sample") -> tuple[str, ...]:
    return (
        f"{sample.requests_per_s:,.0f}",
        *(_latency(value) for value in (sample.p50_ms, sample.p95_ms, sample.p99_ms)),
        _judged(str(sample.errors), good=sample.errors == 0),
        f"{sample.cpu_ms:.3f}",
    )


def _latency(ms: float) -> str:
    """Return it in three digits or four: the table has to fit on 80 columns, with every figure whole."""
    return f"{ms:.1f}" if ms < 100 else f"{ms:.0f}"  # noqa: PLR2004  # three digits say enough


def _show_reviewers(out: Console, seen: "Reviewers") -> None:
    from bench.reviewers import ERRORS_BAR, P95_BAR_MS  # noqa: PLC0415  # as above

    figures = (
        f"{seen.requests:,} requests",
        f"{seen.accepted:,} decisions taken",
        f"{seen.conflicts:,} too late",
        _judged(f"{seen.errors} errors", good=seen.errors < ERRORS_BAR * seen.requests or seen.errors == 0)
        + f" (bar: < {ERRORS_BAR:.0%})",
        f"p50 {seen.p50_ms:.0f} ms",
        _judged(f"p95 {seen.p95_ms:.0f} ms", good=seen.p95_ms < P95_BAR_MS) + f" (bar: < {P95_BAR_MS})",
        f"p99 {seen.p99_ms:.0f} ms",
        f"{seen.cpu_ms:.3f} CPU s / 1,000",
    )
    crowd = f"{seen.users:,} connected, each deciding on one of {seen.applications} every 10 s"
    out.print(f"  [bold]reviewers[/]  {crowd}, {seen.seconds} s")
    out.print(f"             {', '.join(figures)}")


def _show_steady(out: Console, steady: "Steady") -> None:
    from bench.steady import P95_BAR_MS, RSS_BAR_MB  # noqa: PLC0415  # as above

    figures = (
        f"{steady.requests:,} requests",
        _judged(f"{steady.errors} errors", good=steady.errors == 0),
        f"p50 {steady.p50_ms:.0f} ms",
        _judged(f"p95 {steady.p95_ms:.0f} ms", good=steady.p95_ms < P95_BAR_MS) + f" (bar: < {P95_BAR_MS})",
        f"p99 {steady.p99_ms:.0f} ms",
        f"{steady.cpu_ms:.3f} CPU s / 1,000",
    )
    weight = (
        _judged(f"{steady.rss_max_mb:.0f} MB", good=steady.rss_max_mb < RSS_BAR_MB)
        + f" (bar: < {RSS_BAR_MB})",
        f"in the first third {steady.rss_first_mb:.1f} MB",
        f"in the last {steady.rss_last_mb:.1f} MB",
    )
    out.print(f"  [bold]steady[/]  {steady.users:,} users, a request a second each, {steady.seconds} s")
    out.print(f"          {', '.join(figures)}")
    out.print(f"          heaviest replica: {', '.join(weight)}")


def _judged(text: str, *, good: bool) -> str:
    return f"[{'green' if good else 'bold red'}]{text}[/]"
