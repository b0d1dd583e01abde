"""One measurement: wrk against a target for some seconds, and the CPU that the target used meanwhile."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

from bench.rig import Target
from bench.scenario import Load, Scenario

_WRK_LUA = Path(__file__).with_name("wrk.lua")
_GRACE_S = 30.0
_REQUEST_TIMEOUT_S = 10


class MeasurementError(Exception):
    """A measurement says nothing; the message is one line."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one run of wrk saw. `errors`: failed connections and timeouts, and answers the scenario calls
    wrong. `cpu_ms` is CPU time of all processes of the target a request: the same number as CPU-seconds a
    thousand requests.
    """

    requests_per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    errors: int
    cpu_ms: float


class Wrk:
    """wrk with a scenario's script and rows, written to files once."""

    def __init__(
        self, binary: str, folder: Path, scenario: Scenario, load: Load, *, connections: int
    ) -> None:
        """`folder` receives the files."""
        self._script = folder / f"{scenario.name}.lua"
        self._script.write_text(_WRK_LUA.read_text() + scenario.lua)
        self._rows = folder / f"{scenario.name}.rows"
        self._rows.write_text("".join("\t".join(row) + "\n" for row in load.rows))
        Path(f"{self._rows}.runs").unlink(missing_ok=True)
        self._binary = binary
        self._connections = connections

    async def measure(self, target: Target, seconds: int) -> Sample:
        """Load the target for that many seconds, a bounded time, with every connection always busy.

        Raises MeasurementError when wrk fails or a process of the target died, StartFailedError when one is
        not running.
        """
        before = target.cpu_s()
        result = json.loads(await self._run(target.url, seconds))
        after = target.cpu_s()
        if before.keys() != after.keys():
            raise MeasurementError("a process died under load and was started again; its log says why")
        if not result["requests"]:
            raise MeasurementError(f"{target.url} answered nothing for {seconds} s")
        return Sample(
            requests_per_s=result["requests"] / result["seconds"],
            p50_ms=result["p50_ms"],
            p95_ms=result["p95_ms"],
            p99_ms=result["p99_ms"],
            errors=result["errors"],
            cpu_ms=(sum(after.values()) - sum(before.values())) * 1000 / result["requests"],
        )

    async def _run(self, url: str, seconds: int) -> bytes:
        """Return the last line that wrk prints."""
        # one thread: it is more than enough, and answers and requests then share their Lua variables
        wrk = await asyncio.create_subprocess_exec(
            *(self._binary, "--threads", "1", "--connections", str(self._connections)),
            *("--duration", f"{seconds}s", "--timeout", f"{_REQUEST_TIMEOUT_S}s"),
            *("--script", str(self._script), url, "--", str(self._rows)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(seconds + _GRACE_S):
                output, complaints = await wrk.communicate()
        finally:
            if wrk.returncode is None:
                wrk.kill()
                await wrk.wait()
        lines = output.splitlines()
        if wrk.returncode or not lines or not lines[-1].startswith(b"{"):
            said = (complaints or output).decode(errors="replace").strip().rpartition("\n")[2] or "nothing"
            raise MeasurementError(f"wrk ended with {wrk.returncode} and said: {said}")
        return lines[-1]
