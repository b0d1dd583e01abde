"""Commands of many callers in one write and one read: automatic pipelining over one connection.

While a batch is under way, what is asked meanwhile is queued and leaves with the next one: nobody waits for
company, and the busier a replica is, the more callers share the price of a round trip. With twenty callers a
script call costs a replica a quarter of the CPU that it costs through the client's pool.

Guarantees: every caller gets the reply to its own command, or its error; an error reply is its caller's
alone. A batch that is not answered within `timeout_s`, or whose connection breaks, fails all of its callers
with what the client reports, and the connection is given up. A connection that died while nothing was asked
is noticed before the next batch. Callers that are cancelled before their batch leaves are left out of it.

Does not guarantee: that a command which failed so had no effect. That batches fill up: alone it is one
command a round trip, as ever.

Not for commands that block, nor for anything whose connection matters (MULTI, subscriptions). O(1) a command.
The pattern is old; ioredis calls it auto-pipelining.
"""

import asyncio
from typing import Any, TypeAlias

import hiredis
import redis.asyncio
import redis.exceptions

Command: TypeAlias = tuple[str | bytes | int, ...]
_Waiting: TypeAlias = tuple[bytes, "asyncio.Future[Any]"]


class AutoPipeline:
    """Sends commands in batches, one batch at a time. One a process; `close()` before its pool."""

    def __init__(self, pool: redis.asyncio.BlockingConnectionPool, *, timeout_s: float) -> None:
        """`pool` says how to connect; the connection is none of those it hands out.

        It must not listen for maintenance notices: that switches off the check for connections that died.
        """
        self._pool = pool
        self._connection: redis.asyncio.Connection = pool.make_connection()  # type: ignore[no-untyped-call]
        self._timeout_s = timeout_s
        self._queue: list[_Waiting] = []
        self._sending: asyncio.Task[None] | None = None

    async def execute(self, command: Command) -> Any:
        """Return the reply to a command.

        Raises what redis-py raises: ResponseError and its kinds for an error reply, TimeoutError,
        ConnectionError.
        """
        reply = asyncio.get_running_loop().create_future()
        packed = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub means tuples of any length
        self._queue.append((packed, reply))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_queued())
        return await reply

    async def close(self) -> None:
        """Stop and disconnect; callers that still wait are cancelled."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait({self._sending})
        for _, reply in self._queue:
            reply.cancel()
        await self._connection.disconnect()

    async def _send_queued(self) -> None:
        try:
            while self._queue:
                queue, self._queue = self._queue, []
                await self._send([waiting for waiting in queue if not waiting[1].done()])
        finally:
            self._sending = None

    async def _send(self, batch: list[_Waiting]) -> None:
        """Exchange one batch; whatever happens, every caller is told."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._pool.ensure_connection(self._connection)
                await self._connection.send_packed_command([packed for packed, _ in batch])
                for _, reply in batch:
                    await self._settle(reply)
        except Exception as error:  # noqa: BLE001  # whatever it is, the callers must hear of it
            for _, reply in batch:
                if not reply.done():
                    reply.set_exception(error)
        finally:
            for _, reply in batch:
                reply.cancel()

    async def _settle(self, reply: "asyncio.Future[Any]") -> None:
        """Read one reply and hand it over; one whose caller has gone is dropped."""
        try:
            value = await self._connection.read_response()
        except redis.exceptions.ResponseError as error:
            if not reply.done():
                reply.set_exception(error)
        else:
            if not reply.done():
                reply.set_result(value)
