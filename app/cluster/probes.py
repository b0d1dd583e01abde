"""Asking a process whether it serves.

Every question has a deadline; what does not answer is simply not ready.
"""

import asyncio
from http import HTTPStatus

import pymongo.errors
import redis.asyncio
import redis.exceptions
from pymongo import AsyncMongoClient

from app.cluster.ports import LOOPBACK

_TIMEOUT_S = 2.0


async def http_status(port: int, path: str, *, timeout_s: float = _TIMEOUT_S) -> int | None:
    """GET a path on loopback and return the status; None if nobody answers HTTP in time."""
    request = (
        f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nUser-Agent: cargoflow\r\nConnection: close\r\n\r\n"
    )
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            try:
                writer.write(request.encode())
                protocol, status = (await reader.readline()).split()[:2]
                return int(status) if protocol.startswith(b"HTTP/") else None
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError):
        return None


async def http_ready(port: int) -> bool:
    """Say whether `/ready` on that port answers 200."""
    return await http_status(port, "/ready") == HTTPStatus.OK


async def mongo_failure(uri: str) -> str | None:
    """Ping the MongoDB the URI names; return None if it answers, else why not, without the URI's password."""
    try:
        async with asyncio.timeout(2 * _TIMEOUT_S):
            timeout_ms = round(_TIMEOUT_S * 1000)
            client: AsyncMongoClient[dict[str, object]] = AsyncMongoClient(
                uri,
                serverSelectionTimeoutMS=timeout_ms,
                connectTimeoutMS=timeout_ms,
                socketTimeoutMS=timeout_ms,
            )
            async with client:
                await client.admin.command("ping")
    except TimeoutError:
        return "no answer in time"
    except pymongo.errors.PyMongoError as error:
        return str(error).partition(" (configured timeouts")[0].partition(", Timeout:")[0]
    return None


async def redis_failure(url: str) -> str | None:
    """Ping the Redis the URL names; return None if it answers, else why not, without the URL's password."""
    try:
        async with redis.asyncio.from_url(
            url, socket_connect_timeout=_TIMEOUT_S, socket_timeout=_TIMEOUT_S
        ) as client:
            await client.ping()
    except (redis.exceptions.RedisError, OSError, ValueError) as error:
        return str(error) or type(error).__name__
    return None
