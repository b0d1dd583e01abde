"""The tools for MCP clients: `POST /mcp`, streamable HTTP by the official SDK.

Stateless: every request carries its credential (an access token or an API key) and is answered in itself, as
JSON, so any replica serves any of them and none keeps a session. There is nothing to stream to a client
unasked, hence no GET. Tools run with the rights of that credential's user, as everywhere.

A host that is not ours is refused with 421, lest a page that has its own name point to our address use a
browser inside the network.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import mcp_types as types
import orjson
from fastapi import Depends, Request, Response
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.types import Receive, Scope, Send

from app.core.errors import CargoFlowError
from app.core.settings import Settings
from app.core.version import VERSION
from app.http.admission import Caller
from app.http.routing import BODY_LIMIT_BYTES, ApiRouter
from app.http.tools import Tool
from app.state.kit import StateKit

INSTRUCTIONS: Final = "Bookings, prices and addresses of the CargoFlow user whose credential you were given."
_PRINCIPAL: Final = "cargoflow.principal"
_ALWAYS: Final = frozenset(("localhost", "127.0.0.1", "::1"))


class MisdirectedRequestError(CargoFlowError):
    """This server does not answer for the host that the request names."""

    status, code, title = 421, "misdirected_request", "Misdirected request"

    def __init__(self) -> None:
        """Say where to add it."""
        super().__init__("The host of the request is none of this server's; SERVER_NAMES lists those.")


class McpServer:
    """The MCP server of one replica. Made by `open_mcp`."""

    def __init__(self, kit: StateKit, tools: Sequence[Tool]) -> None:
        """`tools` are offered to everybody; what they show depends on who calls."""
        self._kit = kit
        self._tools = {tool.name: tool for tool in tools}
        self._hosts = hosts_of(kit.settings)
        server: Server[Any] = Server(
            "cargoflow",
            version=VERSION,
            instructions=INSTRUCTIONS,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
        )
        self.manager = StreamableHTTPSessionManager(
            server,
            stateless=True,
            json_response=True,
            max_request_body_size=BODY_LIMIT_BYTES,
            # done here, so that a refusal is a problem like every other
            security_settings=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        )

    def check_host(self, host: str) -> None:
        """Raise MisdirectedRequestError for a host that is not ours; the port doesn't matter."""
        if urlsplit(f"//{host}").hostname not in self._hosts:
            raise MisdirectedRequestError

    async def _list_tools(self, *_: object) -> types.ListToolsResult:
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

    async def _call_tool(self, context: Any, call: types.CallToolRequestParams) -> types.CallToolResult:
        tool = self._tools.get(call.name)
        if tool is None:
            return _result({"error": "not_found", "detail": "There is no such tool."}, is_error=True)
        try:
            caller = context.request.scope[_PRINCIPAL]
            return _result(await tool.call(self._kit, caller, call.arguments or {}))
        except CargoFlowError as error:
            return _result({"error": error.code, "detail": error.detail, **error.extra}, is_error=True)


def hosts_of(settings: Settings) -> frozenset[str]:
    """Return the hosts that this service answers for, in lower case and without ports."""
    public = urlsplit(settings.public_url).hostname
    names = {name.strip("[]").lower() for name in settings.server_names}
    return _ALWAYS | names | ({public} if public else set())


@asynccontextmanager
async def open_mcp(kit: StateKit, tools: Sequence[Tool]) -> AsyncIterator[McpServer]:
    """Open the SDK's task group, which a mounted application of the SDK would not get from us."""
    server = McpServer(kit, tools)
    async with server.manager.run():
        yield server


class _Answer(Response):
    """Whatever the SDK answers."""

    def __init__(self, manager: StreamableHTTPSessionManager) -> None:
        super().__init__()
        self._manager = manager

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._manager.handle_request(scope, receive, send)


async def _server(request: Request) -> McpServer:
    server: McpServer = request.app.state.mcp
    server.check_host(request.headers.get("host", ""))
    return server


router = ApiRouter(tags=["MCP"])


@router.post("/mcp", include_in_schema=False)
async def mcp(request: Request, caller: Caller, server: Annotated[McpServer, Depends(_server)]) -> Response:
    """Answer one message of an MCP client."""
    request.scope[_PRINCIPAL] = caller
    return _Answer(server.manager)


def _result(value: Any, *, is_error: bool = False) -> types.CallToolResult:
    text = orjson.dumps(value, default=str)
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=text.decode())],
        structured_content=orjson.loads(text),
        is_error=is_error,
    )
