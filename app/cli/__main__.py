"""Entry point of `./cargoflow`: gathers the commands, turns expected failures into one line and exit code 1.

The command modules import the cluster's machinery only inside the command that needs it, so that `status`
stays quick.
"""

import io
import sys

import typer

from app.cli import bench, environment_file, lifecycle, log_viewer, store_commands, test_runner
from app.cli.terminal import CommandFailedError, show_failure

app = typer.Typer(
    help="Run a whole CargoFlow cluster on this machine. Start with `./cargoflow up`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    lifecycle.up,
    lifecycle.status,
    lifecycle.scale,
    lifecycle.restart,
    lifecycle.down,
    log_viewer.logs,
    store_commands.migrate,
    store_commands.seed,
    environment_file.env,
    bench.bench,
):
    app.command()(command)
app.command("test", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(
    test_runner.run_tests
)


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # ✓ is not in every encoding
    try:
        app(prog_name="./cargoflow")
    except CommandFailedError as failure:
        show_failure(failure)
        sys.exit(1)
    except OSError as error:
        show_failure(
            CommandFailedError(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        )
        sys.exit(1)


if __name__ == "__main__":
    main()
