"""test: every test of the repository."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from app.cluster.layout import REPOSITORY

SPREAD = ("-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")
"""Everything at once goes over two processes, a file to one of them: most tests wait for processes they
started, so that takes little more than half as long. In the order of their names, in which the longest files
come early, so that none of them is begun last. A selection does not, so that -s, -x and --pdb do what they
say.
"""

Full = Annotated[bool, typer.Option("--full", help="Run the long scenarios with their full counts.")]
TestData = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="Keep the tests' data in DIR/tests, which is emptied first.",
        show_default=False,
    ),
]


def run_tests(context: typer.Context, *, full: Full = False, data: TestData = None) -> None:
    """Run the tests; they start the engines they need themselves, on free ports.

    The default takes some minutes; --full runs every scenario with its full counts. Everything else is handed
    to pytest, whose exit code this command has.

    Example: ./cargoflow test tests/state -k lock -x
    """
    basetemp = []
    if data:
        data.mkdir(parents=True, exist_ok=True)  # pytest makes its own folder only
        basetemp = [f"--basetemp={data.absolute() / 'tests'}"]
    spread = () if any(not argument.startswith("-") for argument in context.args) else SPREAD
    environment = {**os.environ, **({"CARGOFLOW_FULL": "1"} if full else {})}
    sys.stdout.flush()
    os.chdir(REPOSITORY)
    command = [sys.executable, "-m", "pytest", *basetemp, *spread, *context.args]
    os.execve(sys.executable, command, environment)  # noqa: S606  # no shell wanted
