"""Telling people that a run has failed: a webhook, Slack, e-mail.

Every channel is tried, at the same time, so that one that is down neither keeps the others from being told nor holds
up whoever calls. Addresses of webhooks and passwords are in no message and no error.
"""

from __future__ import annotations

import json
import smtplib
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import TYPE_CHECKING

from mlops_dagster.stack.secrets import redacted

if TYPE_CHECKING:
    from mlops_dagster.stack.automation import EmailSettings, NotifySettings

TIMEOUT_SECONDS = 5.0
ATTEMPTS = 2
PAUSE_SECONDS = 1.0
_LONGEST_ERROR = 2000  # characters; Slack takes 3000 in a block


@dataclass(frozen=True)
class Failure:
    """A run that has failed.

    Attributes
    ----------
    symbol, step : str or None
        For which symbol, and in which step, where that is known.
    error : str
        What went wrong, without a traceback.
    dagster_url, mlflow_url : str or None
        Where to look.
    """

    job: str
    run_id: str
    symbol: str | None
    step: str | None
    error: str
    dagster_url: str
    mlflow_url: str | None = None

    @property
    def title(self) -> str:
        """The failure in a line."""
        whose = f" of {self.symbol}" if self.symbol else ""
        where = f" in {self.step}" if self.step else ""
        return " ".join(f"{self.job}{whose} failed{where}".split())

    @property
    def short_error(self) -> str:
        """Its error, with what looks like a secret taken out, and not too long to be read."""
        said = redacted(self.error).strip()
        return said if len(said) <= _LONGEST_ERROR else f"{said[:_LONGEST_ERROR]} ..."


class _NotAccepted(Exception):  # noqa: N818 it reads better where it is caught
    """The other side has refused; trying again wouldn't help."""


def tell(failure: Failure, settings: NotifySettings) -> dict[str, str]:
    """Tell everybody who is configured.

    Returns
    -------
    dict of str to str
        For each channel that couldn't be told its name and why, without its address. Empty if all were.
    """
    channels: dict[str, Callable[[], None]] = {}
    if url := settings.webhook_url:
        channels["webhook_url"] = lambda url=url: _post(url, webhook_message(failure))  # type: ignore[misc]
    if url := settings.slack_webhook_url:
        channels["slack_webhook_url"] = lambda url=url: _post(url, slack_message(failure))  # type: ignore[misc]
    if email := settings.email:
        channels["email"] = lambda email=email: _send(email, failure)  # type: ignore[misc]
    if not channels:
        return {}
    with ThreadPoolExecutor(len(channels)) as threads:
        outcomes = dict(zip(channels, threads.map(_tried, channels.values()), strict=True))
    return {name: problem for name, problem in outcomes.items() if problem}


def webhook_message(failure: Failure) -> dict[str, object]:
    """Return what the webhook gets."""
    return {"event": "run_failed", "title": failure.title, **asdict(failure), "error": failure.short_error}


def slack_message(failure: Failure) -> dict[str, object]:
    """Return the same as Slack shows it."""
    links = [f"<{failure.dagster_url}|Dagster>"]
    if failure.mlflow_url:
        links.append(f"<{failure.mlflow_url}|MLflow>")
    error = failure.short_error.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("```", "'''")
    title = failure.title.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    body = f"*{title}*\n```{error}```\n{' · '.join(links)}"
    return {"text": title, "blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": body}}]}


def mail_message(failure: Failure, settings: EmailSettings) -> EmailMessage:
    """Return the same as a mail."""
    message = EmailMessage()
    message["Subject"] = failure.title
    message["From"] = settings.sender
    message["To"] = ", ".join(settings.to)
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain=settings.sender.rpartition("@")[2])
    lines = [failure.title, "", failure.short_error, "", f"Dagster: {failure.dagster_url}"]
    if failure.mlflow_url:
        lines.append(f"MLflow: {failure.mlflow_url}")
    message.set_content("\n".join([*lines, f"Run: {failure.run_id}", ""]))
    return message


def _tried(send: Callable[[], None]) -> str | None:
    problem = None
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE_SECONDS)
        try:
            send()
        except _NotAccepted as error:
            return str(error)
        # Whatever a library raises, the other channels are told, and nobody's address is repeated.
        except Exception as error:  # noqa: BLE001
            problem = _reason(error)
        else:
            return None
    return f"{problem}, {ATTEMPTS} times"


def _post(url: str, message: dict[str, object]) -> None:
    request = urllib.request.Request(  # noqa: S310 the settings take http and https only
        url, json.dumps(message).encode(), {"Content-Type": "application/json", "User-Agent": "mlops_dagster"}
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):  # noqa: S310
            return
    except urllib.error.HTTPError as error:
        with error:
            if error.code < 500 and error.code not in (408, 429):
                raise _NotAccepted(f"it answered {error.code}; is its address still right?") from None
            raise


def _send(settings: EmailSettings, failure: Failure) -> None:
    secured = ssl.create_default_context()
    try:
        if settings.security == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                settings.host, settings.port, timeout=TIMEOUT_SECONDS, context=secured
            )
        else:
            server = smtplib.SMTP(settings.host, settings.port, timeout=TIMEOUT_SECONDS)
        with server:
            if settings.security == "starttls":
                server.starttls(context=secured)
            if settings.username:
                server.login(settings.username, settings.password or "")
            server.send_message(mail_message(failure, settings))
    except ssl.SSLCertVerificationError as error:
        raise _NotAccepted(f"its certificate isn't trusted ({error.verify_message})") from None
    except smtplib.SMTPAuthenticationError as error:
        raise _NotAccepted(f"it doesn't take this user name and password ({error.smtp_code})") from None
    except smtplib.SMTPNotSupportedError:
        raise _NotAccepted("it has no STARTTLS or no login; see notify.email.security") from None
    except (smtplib.SMTPRecipientsRefused, smtplib.SMTPSenderRefused):
        raise _NotAccepted("it refuses the sender or a recipient") from None


def _reason(error: Exception) -> str:
    """Say what is wrong without what was sent or where to: only kinds of errors and numbers."""
    if isinstance(error, urllib.error.HTTPError):
        return f"it answered {error.code}"
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception):
        error = error.reason
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT_SECONDS:g} seconds"
    if isinstance(error, smtplib.SMTPResponseException):
        return f"the mail server answered {error.smtp_code}"
    if isinstance(error, OSError) and error.strerror:
        return f"it can't be reached ({error.strerror})"
    return f"it can't be reached ({type(error).__name__})"
