"""A floor process: `python -m bench.floor SCENARIO`, the least an answer can cost on this stack.

A bare ASGI application on uvicorn with a replica's settings (uvloop, httptools, no access log, the same
keep-alive) that reads the request, does the scenario's store calls through Motor and `redis.asyncio`, and
sends a body made beforehand. It checks nothing, counts nothing and logs nothing.
"""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import redis.asyncio
import uvicorn
from motor.motor_asyncio import AsyncIOMotorClient

from app.cluster.ports import LOOPBACK
from app.serve import BACKLOG, KEEP_ALIVE_S
from bench.scenario import FloorCall, FloorStores, load_scenario

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class FloorApp:
    """Answers every request the same, after the scenario's store calls."""

    def __init__(self, call: FloorCall, answer: bytes) -> None:
        """`answer` is every answer's body."""
        self._call = call
        length = str(len(answer)).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", length)]
        self._start = {"type": "http.response.start", "status": 200, "headers": headers}
        self._body = {"type": "http.response.body", "body": answer}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["method"] != "GET":
            while (await receive()).get("more_body"):
                pass
        await self._call()
        await send(self._start)
        await send(self._body)


async def _serve(name: str, answer: bytes) -> None:
    async with AsyncExitStack() as open_clients:
        mongo: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(
            os.environ["MONGODB_URI"], tz_aware=True
        )
        open_clients.callback(mongo.close)
        store = await open_clients.enter_async_context(redis.asyncio.Redis.from_url(os.environ["REDIS_URL"]))
        database = mongo.get_default_database()
        stores = FloorStores(database, database[f"floor_{name}"], store, answer)
        app = FloorApp(await load_scenario(name).floor(stores), answer)
        config = uvicorn.Config(
            app,
            host=LOOPBACK,
            port=int(os.environ["PORT"]),
            loop="uvloop",
            http="httptools",
            lifespan="off",
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
            access_log=False,
            log_level="warning",
            proxy_headers=False,
            server_header=False,
        )
        await uvicorn.Server(config).serve()


def main() -> None:
    """Serve until told to end."""
    with asyncio.Runner(loop_factory=uvicorn.Config("", loop="uvloop").get_loop_factory()) as runner:
        runner.run(_serve(sys.argv[1], Path(os.environ["FLOOR_ANSWER"]).read_bytes()))


if __name__ == "__main__":
    main()
