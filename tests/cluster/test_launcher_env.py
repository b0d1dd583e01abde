"""`./cargoflow env`: which lines of .env.example it fills."""

import re

from app.cli.environment_file import with_fresh_secrets

EXAMPLE = """\
# How tokens are signed (secret)
JWT_SECRET=
# A sample that is given stays (secret)
GIVEN=as it is
# Not secret
EMPTY=

# A comment that is not right above does not count (secret)

FAR=
"""


def test_empty_variables_marked_secret_get_a_value_and_all_else_stays() -> None:
    lines = EXAMPLE.splitlines()
    filled = list(with_fresh_secrets(lines))
    assert re.fullmatch(r"JWT_SECRET=[0-9a-f]{64}", filled[1])
    assert filled[0] == lines[0]
    assert filled[2:] == lines[2:]


def test_every_call_makes_new_secrets() -> None:
    first, second = (list(with_fresh_secrets(EXAMPLE.splitlines())) for _ in range(2))
    assert first[1] != second[1]
