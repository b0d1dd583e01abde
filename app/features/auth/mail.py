"""Writes the mails of this feature and hands them to a mail server.

A delivery looks up whose address it is, makes the link, and talks SMTP for at most SMTP_TIMEOUT_S. Without
SMTP_HOST the mail goes to the log in development, and fails with a clear error in production.
"""

import asyncio
import logging
from email.message import EmailMessage
from email.utils import formatdate
from urllib.parse import quote

import aiosmtplib

from app.core.emails import deliverable_address
from app.core.errors import StoreUnavailableError
from app.state.accounts import RESET_TTL_S, Account
from app.state.kit import StateKit
from app.state.mail_outbox import Mail, Outbox

_log = logging.getLogger(__name__)

SMTP_TIMEOUT_S = 30
"""For the whole conversation; below the outbox's lease."""
_STEP_TIMEOUT_S = 10

_RESET_TEXT = """\
Hello,

somebody, probably you, asked for a new password for your CargoFlow account.
Choose one here within {minutes} minutes:

{link}

If it was not you, ignore this mail: your password stays as it is.
"""


class Postman:
    """Delivers what is in the outbox, one mail at a time."""

    def __init__(self, kit: StateKit) -> None:
        """Takes mail server and sender from the kit's settings."""
        self._kit = kit
        self._settings = kit.settings
        self._outbox = Outbox(kit.mongo, kit.clock)

    async def deliver_next(self) -> bool:
        """Try to deliver one mail; False if none was due.

        A failed attempt is recorded and not raised. Raises StoreUnavailableError; the mail is tried again
        then.
        """
        mail = await self._outbox.claim()
        if mail is None:
            return False
        account = await self._kit.accounts.find_by_email(mail.to)
        if account is None or not account.active:
            await self._outbox.discard(mail)
            return True
        try:
            await self._hand_over(await self._compose(mail, account))
        except StoreUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever is wrong with one mail must not keep others waiting
            reason = f"{type(error).__name__}: {error}"
            _log.warning("mail_failed", extra={"mail_id": mail.id, "attempt": mail.attempt, "reason": reason})
            await self._outbox.failed(mail, reason)
        else:
            _log.info("mail_delivered", extra={"mail_id": mail.id, "attempt": mail.attempt})
            await self._outbox.delivered(mail)
        return True

    async def _compose(self, mail: Mail, account: Account) -> EmailMessage:
        token = await self._kit.accounts.begin_reset(account)
        # behind the #, where neither servers nor other sites get to see it
        link = f"{self._settings.public_url.rstrip('/')}/reset-password#token={quote(token)}"
        message = EmailMessage()
        message["From"] = self._settings.mail_from
        message["To"] = deliverable_address(mail.to)
        message["Subject"] = "Choose a new CargoFlow password"
        message["Date"] = formatdate(self._kit.clock.now().timestamp())
        message["Message-ID"] = f"<{mail.id}@cargoflow>"
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(_RESET_TEXT.format(minutes=RESET_TTL_S // 60, link=link))
        return message

    async def _hand_over(self, message: EmailMessage) -> None:
        settings = self._settings
        if not settings.smtp_host:
            if settings.production:
                raise MailNotConfiguredError("SMTP_HOST is not set, so no mail can be sent.")
            _log.info(
                "mail_not_sent_in_development", extra={"to": message["To"], "text": message.get_content()}
            )
            return
        async with asyncio.timeout(SMTP_TIMEOUT_S):
            await aiosmtplib.send(
                message,
                hostname=settings.smtp_host,
                port=settings.smtp_port,
                username=settings.smtp_username or None,
                password=settings.smtp_password.get_secret_value() or None,
                start_tls=settings.smtp_starttls,
                timeout=_STEP_TIMEOUT_S,
            )


class MailNotConfiguredError(Exception):
    """There is no mail server to talk to."""
