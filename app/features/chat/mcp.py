"""The tools for MCP clients: `POST /mcp`, streamable HTTP by the official SDK.

Stateless: every request carries its credential (an access token or an API key) and is answered in itself, as
JSON, so any replica serves any of them and none keeps a session. There is nothing to stream to a client
unasked, hence no GET. Tools run with the rights of that credential's user, as everywhere.

The SDK is loaded when the first such request comes: it takes as long as a quarter of a replica's start and
16 MB, which a replica that no MCP client asks need not have.

A host that is not ours is refused with 421, lest a page that has its own name point to our address use a
browser inside the network.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Final
from urllib.parse import urlsplit

from fastapi import Depends, Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.core.errors import CargoFlowError
from app.core.settings import Settings
from app.http.admission import Caller
from app.http.routing import ApiRouter
from app.http.tools import Tool
from app.state.kit import StateKit

_PRINCIPAL: Final = "cargoflow.principal"
_ALWAYS: Final = frozenset(("localhost", "127.0.0.1", "::1"))


class MisdirectedRequestError(CargoFlowError):
    """This server does not answer for the host that the request names."""

    status, code, title = 421, "misdirected_request", "Misdirected request"

    def __init__(self) -> None:
        """Say where to add it."""
        super().__init__("The host of the request is none of this server's; SERVER_NAMES lists those.")


class McpServer:
    """The MCP server of one replica, which starts when it is first asked. Made by `open_mcp`."""

    def __init__(self, kit: StateKit, tools: Sequence[Tool], tasks: asyncio.TaskGroup) -> None:
        """`tools` are offered to everybody; what they show depends on who calls."""
        self._kit = kit
        self._tools = tools
        self._tasks = tasks
        self._hosts = hosts_of(kit.settings)
        self._started: asyncio.Future[ASGIApp] | None = None
        self._closing = asyncio.Event()

    def check_host(self, host: str) -> None:
        """Raise MisdirectedRequestError for a host that is not ours; the port doesn't matter."""
        if urlsplit(f"//{host}").hostname not in self._hosts:
            raise MisdirectedRequestError

    async def started(self) -> ASGIApp:
        """Return what answers requests.

        The first call loads the SDK, in a thread: it waits for half a second, others are served meanwhile.
        Calls at the same time wait for the same start, and one that is cancelled leaves it to them. Raises
        what loading raised; the next call tries again.
        """
        if self._started is None:
            self._started = asyncio.get_running_loop().create_future()
            self._tasks.create_task(self._serve(self._started))
        return await asyncio.shield(self._started)

    def close(self) -> None:
        """Let the server end, if it was started."""
        self._closing.set()

    async def _serve(self, started: "asyncio.Future[ASGIApp]") -> None:
        """Hold the SDK's task group, which has to be entered and left by one and the same task."""
        try:
            open_server = await asyncio.to_thread(_load)
        except Exception as error:  # noqa: BLE001  # whatever a package does as it is loaded, the replica goes on
            self._started = None
            started.set_exception(error)
            return
        async with open_server(self._kit, self._tools, principal_key=_PRINCIPAL) as server:
            started.set_result(server)
            await self._closing.wait()


def _load() -> Callable[..., AbstractAsyncContextManager[ASGIApp]]:
    from app.features.chat.mcp_server import open_server  # noqa: PLC0415  # see `McpServer.started`

    return open_server


def hosts_of(settings: Settings) -> frozenset[str]:
    """Return the hosts that this service answers for, in lower case and without ports."""
    public = urlsplit(settings.public_url).hostname
    names = {name.strip("[]").lower() for name in settings.server_names}
    return _ALWAYS | names | ({public} if public else set())


@asynccontextmanager
async def open_mcp(kit: StateKit, tools: Sequence[Tool]) -> AsyncIterator[McpServer]:
    """Be ready to start the server; at the end it is closed."""
    async with asyncio.TaskGroup() as tasks:
        server = McpServer(kit, tools, tasks)
        try:
            yield server
        finally:
            server.close()


class _Answer(Response):
    """Whatever the SDK answers."""

    def __init__(self, server: ASGIApp) -> None:
        super().__init__()
        self._server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._server(scope, receive, send)


async def _server(request: Request) -> McpServer:
    server: McpServer = request.app.state.mcp
    server.check_host(request.headers.get("host", ""))
    return server


router = ApiRouter(tags=["MCP"])


@router.post("/mcp", include_in_schema=False)
async def mcp(request: Request, caller: Caller, server: Annotated[McpServer, Depends(_server)]) -> Response:
    """Answer one message of an MCP client."""
    request.scope[_PRINCIPAL] = caller
    return _Answer(await server.started())
