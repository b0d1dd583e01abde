"""Commands of many callers in one write and one read: automatic pipelining over one connection.

While a batch is under way, what is asked meanwhile is queued and leaves with the next one: nobody waits for
company, and the busier a replica is, the more callers share the price of a round trip. Replies are handed out
where they arrive, in the transport's callback: no task and no stream reader stands in between, each of which
would cost another turn of the event loop.

Guarantees: every caller gets the reply to its own command, or its error; an error reply is its caller's
alone. Nobody waits for longer than `timeout_s`, and nobody is told that time is over any sooner, whatever
becomes of those who asked before (the lease in `hot` rests on that). A connection on which everybody has
waited in vain is given up; one that breaks fails all whose commands it was sent, and one that can't be made
all who wait for it. A connection that died while nothing was asked is noticed before the next batch. Callers
that are cancelled before their batch leaves are left out of it.

Does not guarantee: that a command which failed so had no effect. That batches fill up: alone it is one
command a round trip, as ever.

Not for commands that block, nor for anything whose connection matters (MULTI, subscriptions). O(1) a command.
The pattern is old; ioredis calls it auto-pipelining.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

import hiredis
import redis.asyncio
import redis.exceptions

Command: TypeAlias = tuple[str | bytes | int, ...]
_Reply: TypeAlias = "asyncio.Future[Any]"
_Asked: TypeAlias = tuple[bytes, _Reply, float]
"""A packed command, who waits for its reply, and until when on the loop's clock."""
_NOT_YET: Final = object()


class AutoPipeline:
    """Sends commands in batches, one batch at a time. One a process; `close()` before its pool."""

    def __init__(self, pool: redis.asyncio.BlockingConnectionPool, *, timeout_s: float) -> None:
        """`pool` says how to connect; the connection is none of those it hands out.

        It must not listen for maintenance notices: they come unasked, and would be taken for replies.
        """
        self._pool = pool
        self._timeout_s = timeout_s
        self._queue: deque[_Asked] = deque()
        self._link: _Link | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._leaves = False
        self._timer: asyncio.TimerHandle | None = None

    async def execute(self, command: Command) -> Any:
        """Return the reply to a command.

        Raises what redis-py raises: ResponseError and its kinds for an error reply, ConnectionError; and
        TimeoutError.
        """
        loop = asyncio.get_running_loop()
        reply = loop.create_future()
        due_s = loop.time() + self._timeout_s
        packed = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub means tuples of any length
        self._queue.append((packed, reply, due_s))
        if self._timer is None:
            self._timer = loop.call_at(due_s, self._look_at_the_time)
        self._send_soon()
        return await reply

    async def close(self) -> None:
        """Stop and disconnect; callers that still wait are cancelled."""
        queue, self._queue = self._queue, deque()
        for _, reply, _ in queue:
            reply.cancel()
        if self._timer is not None:
            self._timer.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait({self._connecting})
        if self._link is not None:
            for reply in self._link.give_up():
                reply.cancel()

    def _send_soon(self) -> None:
        """Have what is queued leave at the end of this turn of the loop, unless a batch is under way."""
        under_way = self._connecting is not None or (self._link is not None and self._link.waiting)
        if self._queue and not self._leaves and not under_way:
            self._leaves = True
            asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        """Send what is queued as one batch; connect first if need be."""
        self._leaves = False
        batch = [asked for asked in self._queue if not asked[1].done()]
        if not batch:
            self._queue.clear()
        elif self._link is None or self._link.is_lost:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())
        else:
            self._queue.clear()
            self._link.send(batch)

    async def _connect(self) -> None:
        """Connect, or tell those who wait that it can't be done; who waits for a slow one is told in time."""
        try:
            async with asyncio.timeout(self._timeout_s):
                self._link = await _Link.made(self._pool, self._send_soon)
        except (TimeoutError, redis.exceptions.TimeoutError):
            pass  # those who are left have asked meanwhile: the next attempt is theirs
        except Exception as error:  # noqa: BLE001  # whatever it is, the callers must hear of it
            queue, self._queue = self._queue, deque()
            _fail((reply for _, reply, _ in queue), error)
        finally:
            self._connecting = None
            self._send_soon()

    def _look_at_the_time(self) -> None:
        """Fail who has waited for too long; look again when the next one will have. One timer serves all."""
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        while self._queue and self._queue[0][2] <= now_s:
            _fail([self._queue.popleft()[1]], TimeoutError("no connection in time"))
        next_s = self._queue[0][2] if self._queue else None
        if self._link is not None and self._link.waiting:
            next_s = self._link.fail_overdue(now_s) or next_s  # its callers asked before those in the queue
            self._send_soon()
        self._timer = None if next_s is None else loop.call_at(next_s, self._look_at_the_time)


class _Link(asyncio.Protocol):
    """A connection after redis-py has made it and said hello: from then on what comes in is ours to read."""

    def __init__(self, connection: redis.asyncio.Connection, on_rest: Callable[[], None]) -> None:
        """`on_rest` is called whenever nobody waits any more."""
        self._connection = connection
        self._on_rest = on_rest
        self._replies = hiredis.Reader(
            protocolError=redis.exceptions.InvalidResponse,
            replyError=connection._get_parser().parse_error,  # noqa: SLF001  # redis-py's kinds of errors
            notEnoughData=_NOT_YET,
        )
        self.waiting: deque[tuple[_Reply, float]] = deque()
        """Who is owed a reply, in the order of their commands, and until when. May hold some who gave up."""
        self.is_lost = False
        self._transport = connection._writer.transport  # type: ignore[union-attr]  # noqa: SLF001  # has no public name
        self._transport.set_protocol(self)

    @classmethod
    async def made(cls, pool: redis.asyncio.BlockingConnectionPool, on_rest: Callable[[], None]) -> "_Link":
        """Connect as the pool says. Raises what redis-py raises."""
        connection: redis.asyncio.Connection = pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            connection._close()  # type: ignore[no-untyped-call]  # noqa: SLF001  # without waiting: it may be stuck
            raise
        return cls(connection, on_rest)

    def send(self, batch: Iterable[_Asked]) -> None:
        """Send commands whose replies are awaited."""
        self.waiting.extend((reply, due_s) for _, reply, due_s in batch)
        self._transport.write(b"".join([packed for packed, _, _ in batch]))

    def fail_overdue(self, now_s: float) -> float | None:
        """Fail those whose time is over; return when the next one's is, or give up if nobody is left."""
        for reply, due_s in self.waiting:
            if due_s > now_s:
                return due_s
            _fail([reply], TimeoutError("no reply in time"))
        self.give_up()
        return None

    def give_up(self) -> list[_Reply]:
        """End the connection and return whom it owes a reply."""
        owed = [reply for reply, _ in self.waiting]
        self.waiting.clear()
        self.is_lost = True
        self._transport.abort()
        self._connection._close()  # type: ignore[no-untyped-call]  # noqa: SLF001  # without waiting: nobody tells its streams any more
        return owed

    def data_received(self, data: bytes) -> None:
        """Hand out the replies that are complete."""
        self._replies.feed(data)
        try:
            while self.waiting and (value := self._replies.gets()) is not _NOT_YET:
                _settle(self.waiting.popleft()[0], value)
        except redis.exceptions.InvalidResponse as error:
            _fail(self.give_up(), error)
        if not self.waiting:
            if self._replies.has_data():  # nobody asked for it: whose reply would the next one be?
                self.give_up()
            self._on_rest()

    def connection_lost(self, error: Exception | None) -> None:
        """Tell those who wait."""
        gone = redis.exceptions.ConnectionError(f"Connection lost: {error or 'closed by the server'}")
        _fail(self.give_up(), gone)
        self._on_rest()


def _settle(reply: _Reply, value: Any) -> None:
    """Hand a reply over; one whose caller has gone is dropped."""
    if reply.done():
        return
    if isinstance(value, Exception):
        reply.set_exception(value)
    else:
        reply.set_result(value)


def _fail(replies: Iterable[_Reply], error: Exception) -> None:
    for reply in replies:
        if not reply.done():
            reply.set_exception(error)
