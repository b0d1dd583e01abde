"""`Tool`: what an assistant, a language model or an MCP client may call, declared once beside the feature's
routes, in its `tools.py`.

A tool is a second door to the same service that the routes call, and like a route it runs with the rights of
the caller and nobody else's: the principal is given to it by us and is not among the arguments, so that
nothing a model was talked into can name another. Arguments are untrusted: they are checked against the
model, unknown ones refused. Tools read; there is none that changes something, which would have to ask its
user first.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from app.core.errors import CargoFlowError
from app.http.schemas import JsonObject
from app.http.validation import validated
from app.state.kit import StateKit
from app.state.principals import Principal

TOOL_TIMEOUT_S: Final = 10.0


class ToolTimeoutError(CargoFlowError):
    """A tool did not answer in time."""

    status, code, title = 504, "tool_timeout", "The tool took too long"


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool. `run` is given the kit, the caller and an instance of `arguments`; it returns JSON."""

    name: str
    description: str
    arguments: type[BaseModel]
    run: Callable[[StateKit, Principal, Any], Awaitable[JsonObject]]

    @property
    def schema(self) -> JsonObject:
        """The JSON Schema of the arguments."""
        return self.arguments.model_json_schema()

    async def call(self, kit: StateKit, caller: Principal, arguments: Any) -> JsonObject:
        """Run it as `caller`.

        Raises ValidationFailedError for arguments it does not take, ToolTimeoutError, and what the feature's
        service raises.
        """
        checked = validated(self.arguments, arguments)
        try:
            async with asyncio.timeout(TOOL_TIMEOUT_S):
                return await self.run(kit, caller, checked)
        except TimeoutError:
            raise ToolTimeoutError(f"{self.name} took longer than {TOOL_TIMEOUT_S:g} s.") from None
