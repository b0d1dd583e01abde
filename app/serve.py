"""Runs the application under uvicorn, with a way to leave that costs no request.

On SIGTERM or SIGINT the replica drains: `/ready` answers 503 at once while everything else is still served,
and new connections are still taken, for `drain_grace_s`, so that a balancer which probes can take it out
first. Then the listener closes, requests under way may finish for `drain_timeout_s`, and the process ends
with 0. A second signal skips the wait, a third cuts everything off.

uvicorn itself closes the listener at the first signal, and would end by raising it again.
"""

import asyncio
import gc
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

import uvicorn

from app.core.settings import Settings
from app.http.application import Api
from app.http.transport import ReplicaProtocol

KEEP_ALIVE_S: Final = 75
"""Longer than the balancer keeps idle connections (60 s): we never close one that it is about to use."""
WEBSOCKET_PING_S: Final = 30
WEBSOCKET_MESSAGE_MAX_BYTES: Final = 1024 * 1024
BACKLOG: Final = 2048
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class ListenError(Exception):
    """The address can't be listened on, most likely because somebody else does; the message is one line."""


class Server(uvicorn.Server):
    """uvicorn's server, told to drain before it shuts down."""

    def __init__(self, config: uvicorn.Config, *, draining: asyncio.Event, grace_s: float) -> None:
        """`draining` is set at the first signal; `grace_s` later the listener closes."""
        super().__init__(config)
        self._draining = draining
        self._grace_s = grace_s

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Listen for the signals while the server runs."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.leave)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    def leave(self) -> None:
        """Drain; when called again, hurry."""
        if not self._draining.is_set():
            self._draining.set()
            asyncio.get_running_loop().call_later(self._grace_s, self._close)
        elif not self.should_exit:
            self._close()
        else:
            self.force_exit = True

    def _close(self) -> None:
        self.should_exit = True


def server_config(api: Api, settings: Settings) -> uvicorn.Config:
    """Return how uvicorn shall run the application; addresses are the caller's matter."""
    return uvicorn.Config(
        api,
        loop="uvloop",
        http=ReplicaProtocol,
        ws="websockets-sansio",
        ws_max_size=WEBSOCKET_MESSAGE_MAX_BYTES,
        ws_ping_interval=WEBSOCKET_PING_S,
        lifespan="on",
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=settings.drain_timeout_s,
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
    )


def serve(api: Api, settings: Settings) -> None:
    """Serve until told to leave.

    Raises ListenError before anything is started. When the application can't start, the process exits with 3.
    """
    # What exists by now stays; a collector that walks it again and again would take a busy replica's time.
    gc.collect()
    gc.freeze()
    server = Server(server_config(api, settings), draining=api.state.draining, grace_s=settings.drain_grace_s)
    with bound_socket(settings.host, settings.port) as listener:
        server.run(sockets=[listener])


@contextmanager
def bound_socket(host: str, port: int) -> Iterator[socket.socket]:
    """Bind the port without listening yet: until the application is up, connections are refused."""
    with ExitStack() as sockets:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            listener = sockets.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError as error:
            raise ListenError(f"can't listen on {host}:{port}: {error.strerror}") from None
        yield listener
