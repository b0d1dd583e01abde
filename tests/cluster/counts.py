"""How often a test repeats what it does, and how it says what it saw.

By default a tenth of what the project promises to hold, so that the tests are run often; the whole of it with
`./cargoflow test --full`, which sets CARGOFLOW_FULL=1.
"""

import os

FULL = os.environ.get("CARGOFLOW_FULL") == "1"


def full(whole: int, tenth: int) -> int:
    """Return `whole` in a full run and `tenth` in a default one."""
    return whole if FULL else tenth


def show(figures: str) -> None:
    """Print what a test measured; `pytest -s` shows it, and a failure does."""
    print(f"\n{figures}", flush=True)  # noqa: T201  # what it is for
