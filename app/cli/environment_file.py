"""env: a fresh `.env` for Docker Compose or production."""

import re
import secrets
import sys
from collections.abc import Iterable, Iterator

from app.cli.options import DataOption
from app.cluster.layout import REPOSITORY

_SECRET_BYTES = 32
_UNSET = re.compile(r"^[A-Z][A-Z0-9_]*=\s*$")


def env(*, data: DataOption = None) -> None:  # noqa: ARG001  # every command takes --data
    """Print a complete .env with fresh secrets, made from .env.example.

    Every secret is new at each call: keep what it printed. --data has no effect here.

    Example: ./cargoflow env > .env
    """
    example = (REPOSITORY / ".env.example").read_text()
    sys.stdout.write("".join(f"{line}\n" for line in with_fresh_secrets(example.splitlines())))


def with_fresh_secrets(lines: Iterable[str]) -> Iterator[str]:
    """Fill each empty variable whose comment, on the line above, says `(secret)`.

    Secrets are hexadecimal: they fit into a URL, a shell, a Redis configuration and a MongoDB key file alike.
    """
    above = ""
    for line in lines:
        wants_secret = _UNSET.match(line) and above.startswith("#") and "(secret)" in above
        yield f"{line.rstrip()}{secrets.token_hex(_SECRET_BYTES)}" if wants_secret else line
        above = line
