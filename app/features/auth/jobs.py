"""What a worker does for this feature."""

from functools import partial

from app.features.auth.mail import SMTP_TIMEOUT_S, send_reset_mail
from app.state.job_documents import NewJob
from app.state.job_run import Handler, Run
from app.state.kit import StateKit

RESET_MAIL = "auth.reset_mail"
ATTEMPTS_MAX = 8
"""The eighth comes after about ten minutes."""


def reset_mail(email: str) -> NewJob:
    """Return the job that mails a link to the address if it is a user's.

    The row holds no secret: the link is made when the mail is. Nor is it looked up before whose address it
    is, so that asking takes as long for an unknown one; and the job is nobody's, so that nobody sees it.
    """
    return NewJob(RESET_MAIL, {"email": email})


def handlers(kit: StateKit) -> list[Handler]:
    """Return the handlers of this feature."""
    return [
        Handler(
            RESET_MAIL,
            partial(_send_reset_mail, kit),
            attempts_max=ATTEMPTS_MAX,
            timeout_s=SMTP_TIMEOUT_S + 10,
            backoff_first_s=5,
        )
    ]


async def _send_reset_mail(kit: StateKit, run: Run) -> None:
    """Idempotent as far as mail can be: a worker killed after the server took it lets it be sent again, with
    the same Message-ID.
    """
    account = await kit.accounts.find_by_email(run.job.payload["email"])
    if account is not None and account.active:
        await send_reset_mail(kit, account, mail_id=run.job.id)
