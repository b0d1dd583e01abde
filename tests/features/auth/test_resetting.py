import asyncio
import logging
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from app.features.auth.jobs import ATTEMPTS_MAX, handlers
from app.state.kit import StateKit
from tests.features.auth.calls import EMAIL, PASSWORD, log_in, me, refresh, register
from tests.features.auth.mail_server import MailServer, running_mail_server
from tests.state.working import working

NEW_PASSWORD = "something else entirely"


@pytest.fixture
async def mail_server() -> AsyncIterator[MailServer]:
    async with running_mail_server() as server:
        yield server


class Postman:
    """A worker that delivers what is waiting, with no pause between tries."""

    def __init__(self, kit: StateKit, **settings: Any) -> None:
        self._kit = replace(kit, settings=kit.settings.model_copy(update=settings))

    async def deliver(self) -> None:
        """Return when every mail is delivered or given up."""
        impatient = [
            replace(handler, backoff_first_s=0.01, backoff_longest_s=0.02) for handler in handlers(self._kit)
        ]
        async with working(self._kit, *impatient), asyncio.timeout(30):
            while {row["state"] for row in await rows(self._kit)} - {"completed", "dead"}:  # noqa: ASYNC110  # a store
                await asyncio.sleep(0.02)


@pytest.fixture
def postman(kit: StateKit, mail_server: MailServer) -> Postman:
    return Postman(kit, smtp_host="127.0.0.1", smtp_port=mail_server.port, smtp_starttls=False)


async def forget(api: httpx.AsyncClient, email: str = EMAIL) -> httpx.Response:
    return await api.post("/auth/password/forgot", json={"email": email}, headers={"X-Request-ID": "f" * 32})


async def reset(api: httpx.AsyncClient, token: str, password: str = NEW_PASSWORD) -> httpx.Response:
    return await api.post("/auth/password/reset", json={"token": token, "password": password})


async def rows(kit: StateKit) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await kit.mongo.collection("jobs").find({}).to_list(None)
    return found


def token_in(text: str) -> str:
    found = re.search(r"http://localhost:8080/reset-password#token=(\S+)", text)
    assert found is not None, text
    return found[1]


async def test_the_link_in_the_mail_sets_a_new_password_and_ends_all_logins(
    api: httpx.AsyncClient, postman: Postman, mail_server: MailServer
) -> None:
    session = await register(api)
    assert (await forget(api)).status_code == 202
    await postman.deliver()
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
        await postman.deliver()
    first, second = (token_in(mail.get_content()) for mail in mail_server.mails)
    answers = await asyncio.gather(*(reset(api, first, f"{NEW_PASSWORD} {number}") for number in range(5)))
    assert sorted(answer.status_code for answer in answers) == [204, 401, 401, 401, 401]
    assert (await reset(api, second)).status_code == 401


async def test_a_weak_password_does_not_use_the_link_up(
    api: httpx.AsyncClient, postman: Postman, mail_server: MailServer
) -> None:
    await register(api)
    await forget(api)
    await postman.deliver()
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
    await postman.deliver()
    assert mail_server.recipients == [EMAIL]
    stored = [(row["state"], row["result"], row["errors"], row["tenant_id"]) for row in await rows(kit)]
    assert stored == [("completed", None, [], "")] * 2


async def test_a_deactivated_user_gets_no_mail(
    api: httpx.AsyncClient, kit: StateKit, postman: Postman, mail_server: MailServer
) -> None:
    user = (await register(api))["user"]
    await kit.mongo.collection("users").update_one({"_id": user["id"]}, {"$set": {"active": False}})
    await forget(api)
    await postman.deliver()
    assert mail_server.mails == []


async def test_no_row_ever_holds_the_secret(
    api: httpx.AsyncClient, kit: StateKit, postman: Postman, mail_server: MailServer
) -> None:
    await register(api)
    await forget(api)
    await postman.deliver()
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
    await postman.deliver()
    row = (await rows(kit))[0]
    assert (row["state"], row["attempts"]) == ("completed", 1)
    assert "451" in row["errors"][0]["message"]
    assert len(mail_server.mails) == 1
    assert (await reset(api, token_in(mail_server.mails[0].get_content()))).status_code == 204


async def test_delivery_is_given_up_in_the_end_with_the_error_kept(
    api: httpx.AsyncClient, kit: StateKit, postman: Postman, mail_server: MailServer
) -> None:
    await register(api)
    await forget(api)
    mail_server.refusals = 100
    await postman.deliver()
    row = (await rows(kit))[0]
    assert (row["state"], row["attempts"]) == ("dead", ATTEMPTS_MAX)
    assert "451" in row["errors"][-1]["message"]


async def test_a_mail_sent_again_has_the_same_message_id(
    api: httpx.AsyncClient, kit: StateKit, postman: Postman, mail_server: MailServer
) -> None:
    await register(api)
    await forget(api)
    await postman.deliver()
    again = {"state": "pending", "slice": 0, "run_at": kit.clock.now()}  # as if its worker had died too early
    await kit.mongo.collection("jobs").update_many({}, {"$set": again})
    await postman.deliver()
    first, second = mail_server.mails
    assert first["Message-ID"] == second["Message-ID"]


async def test_a_mail_server_that_is_gone_does_not_stop_the_worker(
    api: httpx.AsyncClient, kit: StateKit
) -> None:
    await register(api)
    await forget(api)
    await Postman(kit, smtp_host="127.0.0.1", smtp_port=1).deliver()
    row = (await rows(kit))[0]
    assert (row["state"], row["attempts"]) == ("dead", ATTEMPTS_MAX)


async def test_in_development_without_a_mail_server_the_mail_is_logged(
    api: httpx.AsyncClient, kit: StateKit, caplog: pytest.LogCaptureFixture
) -> None:
    await register(api)
    await forget(api)
    with caplog.at_level(logging.INFO):
        await Postman(kit).deliver()
    text = next(record.text for record in caplog.records if record.message == "mail_not_sent_in_development")
    assert (await reset(api, token_in(text))).status_code == 204


async def test_in_production_without_a_mail_server_the_error_says_so(
    api: httpx.AsyncClient, kit: StateKit, caplog: pytest.LogCaptureFixture
) -> None:
    await register(api)
    await forget(api)
    with caplog.at_level(logging.INFO):
        await Postman(kit, app_env="production").deliver()
    assert "SMTP_HOST" in (await rows(kit))[0]["errors"][0]["message"]
    assert "token=" not in caplog.text


@pytest.mark.parametrize("token", ["x", "usr_1.x", "usr_" + "1" * 22 + "." + "A" * 43, "x" * 512])
async def test_a_made_up_token_is_refused_without_hashing_anything(
    api: httpx.AsyncClient, kit: StateKit, token: str
) -> None:
    kit.passwords.close()
    answer = await reset(api, token)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert PASSWORD not in answer.text
