"""A container's look at itself: `probe.py PATH` exits 0 if PATH answers 200 within TIMEOUT_S.

Standard library only, so that it can run with `python -IS` in 40 ms; the image has no curl.
"""
# ruff: noqa: INP001  # a script, no package

import http.client
import os
import sys
from http import HTTPStatus

TIMEOUT_S = 2.0


def main(path: str) -> str | None:
    """Return what is wrong, or None."""
    connection = http.client.HTTPConnection("127.0.0.1", int(os.environ["PORT"]), timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        if answer.status != HTTPStatus.OK:
            return f"{path}: HTTP {answer.status}: {answer.read(1024).decode(errors='replace')}"
    except (OSError, http.client.HTTPException) as error:
        return f"{path}: {error!r}"
    finally:
        connection.close()
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
