import asyncio
import logging
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from app.state.mail_outbox import ATTEMPTS_MAX, Outbox

from app.features.auth.mail import Postman
from app.state.kit import StateKit
from tests.features.auth.calls import EMAIL, PASSWORD, log_in, me, refresh, register
from tests.features.auth.mail_server import MailServer, running_mail_server

NEW_PASSWORD = "something else entirely"


@pytest.fixture
async def mail_server() -> AsyncIterator[MailServer]:
    async with running_mail_server() as server:
        yield server


@pytest.fixture
def postman(kit: StateKit, mail_server: MailServer) -> Postman:
    changed = kit.settings.model_copy(
        update={"smtp_host": "127.0.0.1", "smtp_port": mail_server.port, "smtp_starttls": False}
    )
    return Postman(replace(kit, settings=changed))


async def forget(api: httpx.AsyncClient, email: str = EMAIL) -> httpx.Response:
    return await api.post("/auth/password/forgot", json={"email": email}, headers={"X-Request-ID": "f" * 32})


async def reset(api: httpx.AsyncClient, token: str, password: str = NEW_PASSWORD) -> httpx.Response:
    return await api.post("/auth/password/reset", json={"token": token, "password": password})


async def rows(kit: StateKit) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await kit.mongo.collection("mails").find({}).to_list(None)
    return found


async def make_due(kit: StateKit) -> None:
    await kit.mongo.collection("mails").update_many(
        {}, {"$set": {"due_at": kit.clock.now() - timedelta(seconds=1)}}
    )


def token_in(text: str) -> str:
    found = re.search(r"http://localhost:8080/reset-password#token=(\S+)", text)
    assert found is not None, text
    return found[1]


async def test_the_link_in_the_mail_sets_a_new_password_and_ends_all_logins(
    api: httpx.AsyncClient, postman: Postman, mail_server: MailServer
) -> None:
    session = await register(api)
    assert (await forget(api)).status_code == 202
    assert await postman.deliver_next()
    mail = mail_server.mails[0]
    assert mail["To"] == EMAIL
    assert mail_server.recipients == [EMAIL]
    token = token_in(mail.get_content())
    assert (await reset(api, token)).status_code == 204
    assert (await me(api, session["access_token"])).status_code == 401
    assert (await refresh(api, session["refresh_token"])).status_code == 401
    assert (await log_in(api)).status_code == 401
    assert (await log_in(api, password=NEW_PASSWORD)).status_code == 200


async def test_a_link_works_once_and_takes_the_others_with_it(
    api: httpx.AsyncClient, postman: Postman, mail_server: MailServer
) -> None:
    await register(api)
    for _ in range(2):
        await forget(api)
        await postman.deliver_next()
    first, second = (token_in(mail.get_content()) for mail in mail_server.mails)
    answers = await asyncio.gather(*(reset(api, first, f"{NEW_PASSWORD} {number}") for number in range(5)))
    assert sorted(answer.status_code for answer in answers) == [204, 401, 401, 401, 401]
    assert (await reset(api, second)).status_code == 401


async def test_a_weak_password_does_not_use_the_link_up(
    api: httpx.AsyncClient, postman: Postman, mail_server: MailServer
) -> None:
    await register(api)
    await forget(api)
    await postman.deliver_next()
    token = token_in(mail_server.mails[0].get_content())
    assert (await reset(api, token, "password1")).status_code == 422
    assert (await reset(api, token, EMAIL)).status_code == 422
    assert (await reset(api, token)).status_code == 204


async def test_whether_an_address_is_known_shows_neither_in_the_answer_nor_in_the_stores(
    api: httpx.AsyncClient, kit: StateKit, postman: Postman, mail_server: MailServer
) -> None:
    await register(api)
    known, unknown = await forget(api), await forget(api, "nobody@example.com")
    assert known.status_code == unknown.status_code == 202
    assert known.content == unknown.content
    assert len(await rows(kit)) == 2
    while await postman.deliver_next():
        pass
    assert mail_server.recipients == [EMAIL]
    assert [row["state"] for row in await rows(kit)] == ["delivered"]


async def test_a_deactivated_user_gets_no_mail(
    api: httpx.AsyncClient, kit: StateKit, postman: Postman, mail_server: MailServer
) -> None:
    user = (await register(api))["user"]
    await kit.mongo.collection("users").update_one({"_id": user["id"]}, {"$set": {"active": False}})
    await forget(api)
    assert await postman.deliver_next()
    assert mail_server.mails == []


async def test_no_row_ever_holds_the_secret(
    api: httpx.AsyncClient, kit: StateKit, postman: Postman, mail_server: MailServer
) -> None:
    await register(api)
    await forget(api)
    await postman.deliver_next()
    secret = token_in(mail_server.mails[0].get_content()).partition(".")[2]
    users = await kit.mongo.collection("users").find({}).to_list(None)
    assert secret not in str(await rows(kit)) + str(users)


async def test_asking_is_limited_but_does_not_keep_the_user_from_logging_in(api: httpx.AsyncClient) -> None:
    await register(api)
    assert [(await forget(api)).status_code for _ in range(6)] == [202] * 5 + [429]
    assert (await log_in(api)).status_code == 200


async def test_a_mail_the_server_refuses_is_sent_later(
    api: httpx.AsyncClient, kit: StateKit, postman: Postman, mail_server: MailServer
) -> None:
    await register(api)
    await forget(api)
    mail_server.refusals = 1
    assert await postman.deliver_next()
    row = (await rows(kit))[0]
    assert (row["state"], row["attempts"]) == ("pending", 1)
    assert "451" in row["error"]
    assert not await postman.deliver_next()
    await make_due(kit)
    assert await postman.deliver_next()
    assert len(mail_server.mails) == 1
    assert (await reset(api, token_in(mail_server.mails[0].get_content()))).status_code == 204


async def test_delivery_is_given_up_in_the_end_with_the_error_kept(
    api: httpx.AsyncClient, kit: StateKit, postman: Postman, mail_server: MailServer
) -> None:
    await register(api)
    await forget(api)
    mail_server.refusals = 100
    for _ in range(ATTEMPTS_MAX):
        await make_due(kit)
        assert await postman.deliver_next()
    await make_due(kit)
    assert not await postman.deliver_next()
    row = (await rows(kit))[0]
    assert (row["state"], row["attempts"]) == ("failed", ATTEMPTS_MAX)
    assert "451" in row["error"]


async def test_a_mail_that_kills_its_worker_each_time_is_given_up(
    api: httpx.AsyncClient, kit: StateKit
) -> None:
    await register(api)
    await forget(api)
    outbox = Outbox(kit.mongo, kit.clock)
    for attempt in range(1, ATTEMPTS_MAX + 1):
        mail = await outbox.claim()
        assert mail is not None
        assert mail.attempt == attempt
        assert await outbox.claim() is None
        await make_due(kit)
    assert await outbox.claim() is None
    assert (await rows(kit))[0]["state"] == "failed"


async def test_of_many_workers_one_gets_a_mail(api: httpx.AsyncClient, kit: StateKit) -> None:
    await register(api)
    for _ in range(3):
        await forget(api)
    claims = await asyncio.gather(*(Outbox(kit.mongo, kit.clock).claim() for _ in range(12)))
    claimed = [mail.id for mail in claims if mail is not None]
    assert len(claimed) == len(set(claimed)) == 3


async def test_a_worker_that_lost_its_lease_records_nothing(api: httpx.AsyncClient, kit: StateKit) -> None:
    await register(api)
    await forget(api)
    outbox = Outbox(kit.mongo, kit.clock)
    late = await outbox.claim()
    await make_due(kit)
    current = await outbox.claim()
    assert late is not None
    assert current is not None
    await outbox.failed(late, "too late")
    assert "error" not in (await rows(kit))[0]
    await outbox.delivered(current)
    await outbox.failed(late, "too late")
    assert (await rows(kit))[0]["state"] == "delivered"


async def test_a_mail_server_that_is_gone_does_not_stop_the_worker(
    api: httpx.AsyncClient, kit: StateKit
) -> None:
    await register(api)
    await forget(api)
    changed = kit.settings.model_copy(update={"smtp_host": "127.0.0.1", "smtp_port": 1})
    assert await Postman(replace(kit, settings=changed)).deliver_next()
    assert (await rows(kit))[0]["state"] == "pending"


async def test_in_development_without_a_mail_server_the_mail_is_logged(
    api: httpx.AsyncClient, kit: StateKit, caplog: pytest.LogCaptureFixture
) -> None:
    await register(api)
    await forget(api)
    with caplog.at_level(logging.INFO):
        await Postman(kit).deliver_next()
    text = next(record.text for record in caplog.records if record.message == "mail_not_sent_in_development")
    assert (await reset(api, token_in(text))).status_code == 204


async def test_in_production_without_a_mail_server_the_error_says_so(
    api: httpx.AsyncClient, kit: StateKit, caplog: pytest.LogCaptureFixture
) -> None:
    await register(api)
    await forget(api)
    changed = kit.settings.model_copy(update={"app_env": "production"})
    with caplog.at_level(logging.INFO):
        await Postman(replace(kit, settings=changed)).deliver_next()
    assert "SMTP_HOST" in (await rows(kit))[0]["error"]
    assert "token=" not in caplog.text


@pytest.mark.parametrize("token", ["x", "usr_1.x", "usr_" + "1" * 22 + "." + "A" * 43, "x" * 512])
async def test_a_made_up_token_is_refused_without_hashing_anything(
    api: httpx.AsyncClient, kit: StateKit, token: str
) -> None:
    kit.passwords.close()
    answer = await reset(api, token)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert PASSWORD not in answer.text
