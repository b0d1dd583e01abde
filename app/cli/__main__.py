"""Entry point of `./cargoflow`: gathers the commands and turns every expected failure into one line and exit code 1.

The command modules import the cluster's machinery only inside the command that needs it, so that `status` stays quick.
"""

import sys

import typer

from app.cli import cluster_commands, environment_file, log_viewer, store_commands, test_runner
from app.cli.terminal import CommandFailedError, show_failure

app = typer.Typer(
    help="Run a whole CargoFlow cluster on this machine: stores, replicas, workers and Nginx. Start with [bold]./cargoflow up[/bold].",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    cluster_commands.up,
    cluster_commands.status,
    cluster_commands.scale,
    cluster_commands.restart,
    cluster_commands.down,
    log_viewer.logs,
    store_commands.migrate,
    store_commands.seed,
    environment_file.env,
):
    app.command()(command)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(test_runner.test)


def main() -> None:
    """Run the command line."""
    try:
        app(prog_name="./cargoflow")
    except CommandFailedError as failure:
        show_failure(failure)
        sys.exit(1)
    except OSError as error:
        show_failure(CommandFailedError(f"{error.filename}: {error.strerror}" if error.filename else str(error)))
        sys.exit(1)


if __name__ == "__main__":
    main()
