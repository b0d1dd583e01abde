"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

DataOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="The cluster's data folder, which names the cluster.",
        show_default=".data of the repository",
    ),
]
