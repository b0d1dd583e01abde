"""Writes the mails of this feature and hands them to a mail server.

A delivery makes the link and talks SMTP for at most SMTP_TIMEOUT_S. Without
SMTP_HOST the mail goes to the log in development, and fails with a clear error in production.
"""

import asyncio
import logging
from email.message import EmailMessage
from email.utils import formatdate
from urllib.parse import quote

import aiosmtplib

from app.core.emails import deliverable_address
from app.core.settings import Settings
from app.state.accounts import RESET_TTL_S, Account
from app.state.kit import StateKit

_log = logging.getLogger(__name__)

SMTP_TIMEOUT_S = 30
"""For the whole conversation."""
_STEP_TIMEOUT_S = 10

_RESET_TEXT = """\
Hello,

somebody, probably you, asked for a new password for your CargoFlow account.
Choose one here within {minutes} minutes:

{link}

If it was not you, ignore this mail: your password stays as it is.
"""


async def send_reset_mail(kit: StateKit, account: Account, *, mail_id: str) -> None:
    """Mail the user a link to choose a new password; two mails with one `mail_id` have one Message-ID.

    Raises MailNotConfiguredError, StoreUnavailableError, and whatever goes wrong with the mail server.
    """
    token = await kit.accounts.begin_reset(account)
    # behind the #, where neither servers nor other sites get to see it
    link = f"{kit.settings.public_url.rstrip('/')}/reset-password#token={quote(token)}"
    message = EmailMessage()
    message["From"] = kit.settings.mail_from
    message["To"] = deliverable_address(account.email)
    message["Subject"] = "Choose a new CargoFlow password"
    message["Date"] = formatdate(kit.clock.now().timestamp())
    message["Message-ID"] = f"<{mail_id}@cargoflow>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(_RESET_TEXT.format(minutes=RESET_TTL_S // 60, link=link))
    await _hand_over(kit.settings, message)


async def _hand_over(settings: Settings, message: EmailMessage) -> None:
    if not settings.smtp_host:
        if settings.production:
            raise MailNotConfiguredError("SMTP_HOST is not set, so no mail can be sent.")
        _log.info("mail_not_sent_in_development", extra={"to": message["To"], "text": message.get_content()})
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
