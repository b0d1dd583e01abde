"""up, status, scale, restart, down: the life of the local cluster."""

import asyncio
import contextlib
import os
import shlex
import sys
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

import orjson
import typer
from rich.console import Console
from rich.markup import escape

from app.cli.options import DataOption
from app.cli.store_commands import vitals_of
from app.cli.terminal import (
    CommandFailedError,
    LastingConsole,
    Progress,
    console,
    progress,
    show_addresses,
    show_status,
    show_vitals,
)
from app.cluster import client
from app.cluster.control import Answer, ControlError, NobodyThereError
from app.cluster.layout import Layout
from app.cluster.lock import ClusterLock
from app.cluster.plan import Plan

T = TypeVar("T")

Replicas = Annotated[
    int,
    typer.Option(
        "--replicas", min=1, max=64, metavar="N", help="How many identical replicas serve requests."
    ),
]
Workers = Annotated[
    int, typer.Option("--workers", min=0, max=64, metavar="M", help="How many workers do the jobs.")
]
Port = Annotated[
    int,
    typer.Option("--port", min=1, max=65535, metavar="P", help="The port people use, on this machine only."),
]
Detach = Annotated[
    bool,
    typer.Option("--detach", "-d", help="Return once everything is ready; the cluster runs on by itself."),
]
ReplicasWanted = Annotated[
    int, typer.Argument(min=1, max=64, metavar="N", help="How many replicas there shall be.")
]
WorkersWanted = Annotated[
    int | None, typer.Option("--workers", min=0, max=64, metavar="M", help="How many workers there shall be.")
]
Json = Annotated[
    bool, typer.Option("--json", help="One JSON document for programs; passwords are not masked in it.")
]

Live = Annotated[
    bool,
    typer.Option(
        "--live", help="Also ask the stores: heartbeats, connections, waiting jobs, and locks that are held."
    ),
]


def up(
    *,
    replicas: Replicas = 3,
    workers: Workers = 1,
    port: Port = 8080,
    data: DataOption = None,
    detach: Detach = False,
) -> None:
    """Start the whole cluster: MongoDB- and Redis-compatible stores, replicas, workers, Nginx.

    Says when it is ready, and where. What dies is started again. Ctrl-C drains and stops everything; with
    --detach the cluster runs on until './cargoflow down'. Where MONGODB_URI or REDIS_URL is set, the store it
    names is used and none is started. A second 'up' on the same data only says where the first one is.

    Example: ./cargoflow up --replicas 5 --port 9000 --detach
    """
    out = LastingConsole()
    plan = Plan(Layout.at(data), replicas, workers, port)
    plan.layout.prepare()
    with progress(out) as shown:
        _run(_up(plan, out, shown, detach=detach))


async def _up(plan: Plan, out: Console, shown: Progress, *, detach: bool) -> None:
    lock = await client.take_or_join(plan.layout, shown.hear)
    if not isinstance(lock, ClusterLock):
        shown.stop()
        out.print(f"CargoFlow is already running at [bold cyan]{lock['url']}[/] ({_size(lock)}).")
        out.print(
            f"{_typed('scale N', plan.layout)} changes its size, {_typed('down', plan.layout)} stops it."
        )
        return
    if detach:
        try:
            status = await client.start_daemon(plan, lock, shown.hear)
        except asyncio.CancelledError:
            shown.stop()
            out.print("Interrupted; what had been started is stopped again.")
            raise
        _celebrate(
            out,
            shown,
            status,
            plan.layout,
            f"It runs in the background; {_typed('down', plan.layout)} stops it.",
        )
        return
    await _up_in_foreground(plan, out, shown)
    lock.release()


async def _up_in_foreground(plan: Plan, out: Console, shown: Progress) -> None:
    from app.cluster.events import Announcer  # noqa: PLC0415
    from app.cluster.failures import StartFailedError  # noqa: PLC0415
    from app.cluster.supervisor import Supervisor  # noqa: PLC0415  # brings the stores' clients along: only for who needs them
    from app.core.clock import SystemClock  # noqa: PLC0415

    clock = SystemClock()
    with (
        contextlib.closing(Announcer(plan.layout.log("supervisor"), clock)) as announcer,
        announcer.heard_by(shown.hear),
    ):
        try:
            await Supervisor(plan, os.environ, announcer, clock).run(
                lambda status: _celebrate(
                    out, shown, status, plan.layout, "Ctrl-C drains and stops everything."
                )
            )
        except StartFailedError as failure:
            raise CommandFailedError(str(failure), failure.log_tail) from None


def _celebrate(out: Console, shown: Progress, status: Answer, layout: Layout, how_to_stop: str) -> None:
    shown.stop()
    with contextlib.suppress(OSError):  # as in Progress.hear
        show_addresses(out, status)
        out.print(f"  {how_to_stop} Next: {_typed('seed', layout)} makes demo users and prints their logins.")


def _typed(command: str, layout: Layout) -> str:
    """Return a command as it has to be typed for this cluster."""
    data = "" if layout == Layout.at(None) else f" --data {shlex.quote(str(layout.data))}"
    return f"[bold]./cargoflow {escape(command + data)}[/]"


def status(*, as_json: Json = False, live: Live = False, data: DataOption = None) -> None:
    """Show what runs: every process with its pid, whether it is ready, and where it listens.

    Exit code 0 whether or not anything runs. The JSON document has the keys url, nginx, replicas, workers and
    stores; where nothing runs its lists are empty and the rest is null. With --live it also has live, with
    the keys processes, queues and locks.

    Example: ./cargoflow status --live
    """
    out = console()
    layout = Layout.at(data)
    running = _run(_running(layout))
    vitals = vitals_of(layout) if running and live else None
    if as_json:
        document = _document(running) | ({"live": vitals} if live else {})
        sys.stdout.write(
            orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z).decode() + "\n"
        )
    elif running:
        show_status(out, running)
        if vitals:
            show_vitals(out, vitals)
    else:
        out.print("Nothing runs here; [bold]./cargoflow up[/] starts it.")


async def _running(layout: Layout) -> Answer | None:
    try:
        return await client.command(layout, "status", lambda _: None)
    except NobodyThereError:
        return None


def _document(running: Answer | None) -> dict[str, Any]:
    if running:
        return {key: running[key] for key in ("url", "nginx", "replicas", "workers", "stores")}
    stores = {"mongo": {"pid": None, "uri": None}, "redis": {"pid": None, "url": None}}
    return {"url": None, "nginx": {"pid": None}, "replicas": [], "workers": [], "stores": stores}


def scale(replicas: ReplicasWanted, *, workers: WorkersWanted = None, data: DataOption = None) -> None:
    """Change the number of replicas, and of workers, while requests come in.

    New replicas get requests once they are ready. Those that go are taken out of Nginx first and finish what
    they have. No request fails.

    Example: ./cargoflow scale 5 --workers 2
    """
    changed = _change(Layout.at(data), "scale", replicas=replicas, workers=workers)
    console().print(f"Running: {_size(changed)}.")


def restart(*, data: DataOption = None) -> None:
    """Replace every replica and worker by a fresh one, one after another, without a failed request.

    Each replica is taken out of Nginx, finishes what it has, is started again and takes part once it is
    ready; only then the next one goes. Takes up changed code; the stores and Nginx run on. The environment
    stays that of 'up'.

    Example: ./cargoflow restart
    """
    changed = _change(Layout.at(data), "restart")
    console().print(f"Replaced: {_size(changed)}.")


def _change(layout: Layout, name: str, **arguments: object) -> Answer:
    with progress(console()) as shown:
        return _run(client.command(layout, name, shown.hear, **arguments))


def down(*, data: DataOption = None) -> None:
    """Stop the cluster and leave nothing of it running; the data stays.

    Nginx goes first, replicas and workers finish what they have, the stores go last. Also ends what a
    supervisor left behind that was killed. Stores named by MONGODB_URI or REDIS_URL are left alone. Nothing
    running is no error.

    Example: ./cargoflow down
    """
    out, layout = console(), Layout.at(data)
    if not layout.run.is_dir():
        out.print("Nothing was running.")
        return
    with progress(out) as shown:
        orphans = _run(client.stop(layout, shown.hear))
    if orphans:
        out.print(f"The supervisor was gone; ended what it had left: {', '.join(orphans)}.")
    out.print("Nothing was running." if orphans is None else f"Stopped. The data stays in {layout.data}.")


def _run(work: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(work)
    except ControlError as failure:
        raise CommandFailedError(str(failure), failure.log) from None


def _size(status: Answer) -> str:
    def count(things: list[Any], noun: str) -> str:
        return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"

    return f"{count(status['replicas'], 'replica')}, {count(status['workers'], 'worker')}"
