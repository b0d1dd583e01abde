import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from app.core.settings import Settings
from app.state.kit import StateKit
from tests.engines import MongoEngine, as_environment
from tests.features.auth.calls import EMAIL, register
from tests.features.auth.mail_server import running_mail_server
from tests.waiting import until


@asynccontextmanager
async def running_worker(**environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "app.worker",
        env={"PATH": os.environ["PATH"], **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_a_worker_delivers_and_ends_cleanly_when_told_to(
    api: httpx.AsyncClient, settings: Settings
) -> None:
    await register(api)
    async with running_mail_server() as mail_server:
        environment = {
            **as_environment(settings),
            "SMTP_HOST": "127.0.0.1",
            "SMTP_PORT": str(mail_server.port),
            "SMTP_STARTTLS": "false",
        }
        async with running_worker(**environment) as worker:
            await api.post("/auth/password/forgot", json={"email": EMAIL})
            await until(lambda: len(mail_server.mails) == 1)
            worker.terminate()
            output, errors = await asyncio.wait_for(worker.communicate(), 20)
    assert worker.returncode == 0
    assert errors == b""
    lines = [json.loads(line) for line in output.splitlines()]
    assert [line["message"] for line in lines if line["logger"] == "cargoflow.worker"] == [
        "worker_started",
        "worker_stopped",
    ]
    assert b"token=" not in output


async def test_a_worker_waits_for_a_store_that_is_gone(
    api: httpx.AsyncClient, settings: Settings, mongo_engine: MongoEngine, kit: StateKit
) -> None:
    await register(api)
    async with running_mail_server() as mail_server:
        environment = {
            **as_environment(settings),
            "SMTP_HOST": "127.0.0.1",
            "SMTP_PORT": str(mail_server.port),
            "SMTP_STARTTLS": "false",
        }
        await api.post("/auth/password/forgot", json={"email": EMAIL})
        mongo_engine.freeze()
        async with running_worker(**environment) as worker:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(worker.wait(), 5)
            assert mail_server.mails == []
            mongo_engine.thaw()
            await until(lambda: len(mail_server.mails) == 1)


async def test_a_wrong_environment_is_one_line_and_a_failure() -> None:
    async with running_worker(APP_ENV="production", JWT_SECRET="short") as worker:
        output, errors = await asyncio.wait_for(worker.communicate(), 20)
    assert worker.returncode == 78
    assert output == b""
    assert len(errors.splitlines()) == 1
    assert errors.startswith(b"cargoflow: ")
