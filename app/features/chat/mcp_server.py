"""The MCP server as the official SDK makes it. Loaded by `mcp`, and only when somebody asks for it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import mcp_types as types
import orjson
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.types import ASGIApp

from app.core.errors import CargoFlowError
from app.core.version import VERSION
from app.http.routing import BODY_LIMIT_BYTES
from app.http.tools import Tool
from app.state.kit import StateKit

INSTRUCTIONS: Final = "Bookings, prices and addresses of the CargoFlow user whose credential you were given."


@asynccontextmanager
async def open_server(kit: StateKit, tools: Sequence[Tool], *, principal_key: str) -> AsyncIterator[ASGIApp]:
    """Open the SDK's task group, which a mounted application of the SDK would not get from us.

    Yields what answers requests whose scope names the caller under `principal_key`.
    """
    offered = _Tools(kit, tools, principal_key)
    server: Server[Any] = Server(
        "cargoflow",
        version=VERSION,
        instructions=INSTRUCTIONS,
        on_list_tools=offered.list,
        on_call_tool=offered.call,
    )
    manager = StreamableHTTPSessionManager(
        server,
        stateless=True,
        json_response=True,
        max_request_body_size=BODY_LIMIT_BYTES,
        # done by the route, so that a refusal is a problem like every other
        security_settings=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
    async with manager.run():
        yield manager.handle_request


class _Tools:
    """The tools in the SDK's words."""

    def __init__(self, kit: StateKit, tools: Sequence[Tool], principal_key: str) -> None:
        self._kit = kit
        self._tools = {tool.name: tool for tool in tools}
        self._principal_key = principal_key

    async def list(self, *_: object) -> types.ListToolsResult:
        read_only = types.ToolAnnotations(read_only_hint=True, open_world_hint=False)
        tools = [
            types.Tool(
                name=tool.name,
                description=tool.description,
                input_schema=tool.schema,
                annotations=read_only,
            )
            for tool in self._tools.values()
        ]
        return types.ListToolsResult(tools=tools)

    async def call(self, context: Any, call: types.CallToolRequestParams) -> types.CallToolResult:
        tool = self._tools.get(call.name)
        if tool is None:
            return _result({"error": "not_found", "detail": "There is no such tool."}, is_error=True)
        try:
            caller = context.request.scope[self._principal_key]
            return _result(await tool.call(self._kit, caller, call.arguments or {}))
        except CargoFlowError as error:
            return _result({"error": error.code, "detail": error.detail, **error.extra}, is_error=True)


def _result(value: Any, *, is_error: bool = False) -> types.CallToolResult:
    text = orjson.dumps(value, default=str)
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=text.decode())],
        structured_content=orjson.loads(text),
        is_error=is_error,
    )
