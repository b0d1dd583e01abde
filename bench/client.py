"""Running a client of many users as a process of its own, so that it has an event loop to itself."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from app.cluster.layout import REPOSITORY
from bench.measure import MeasurementError

_GRACE_S = 60


async def run_client(module: str, file: Path, *, seconds: float) -> dict[str, Any]:
    """Run `python -m module FILE`, where the file holds its plan, and return the JSON that it prints.

    It is given `seconds` and a minute. Raises MeasurementError.
    """
    client = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, str(file)),
        cwd=REPOSITORY,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(seconds + _GRACE_S):
            output, complaints = await client.communicate()
    finally:
        if client.returncode is None:
            client.kill()
            await client.wait()
    if client.returncode:
        said = complaints.decode(errors="replace").strip().rpartition("\n")[2]
        raise MeasurementError(f"{module} exited with {client.returncode}: {said}")
    seen: dict[str, Any] = json.loads(output)
    return seen
