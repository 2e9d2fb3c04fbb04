"""Send plain e-mail by SMTP, in threads of its own: a hanging server keeps nobody else waiting."""

import asyncio
import smtplib
import ssl
from concurrent.futures import ThreadPoolExecutor
from email.message import EmailMessage
from typing import Final, Self
from urllib.parse import unquote, urlsplit

from service.settings import is_loopback

TIMEOUT_S: Final = 10.0
THREADS: Final = 4
PORTS: Final = {"smtp": 25, "smtps": 465}


class MailFailed(Exception):  # noqa: N818 (it says what happened)
    """The message was not sent. The text says why."""


class Mail:
    """Sends by one server. `url` is `smtp://user:password@host:port` or `smtps://...`; None sends nothing.

    `smtp` uses TLS where the server offers it, and always before a password.
    """

    def __init__(self, url: str | None, sender: str) -> None:
        self._url = url
        self._sender = sender
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="mail")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    @property
    def is_set(self) -> bool:
        return self._url is not None

    async def send(self, to: list[str], subject: str, text: str, message_id: str) -> None:
        """Raises `MailFailed`."""
        if self._url is None:
            raise MailFailed("SMTP_URL is not set")
        message = EmailMessage()
        message["From"] = self._sender
        message["To"] = ", ".join(to)
        message["Subject"] = " ".join(subject.split())[:200]
        message["Message-ID"] = f"<{message_id}@{self._sender.rpartition('@')[2]}>"
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(text)
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._threads, _send, self._url, message)
        except (OSError, smtplib.SMTPException, ValueError) as error:
            raise MailFailed(f"{type(error).__name__}: {error}"[:500]) from None


def _send(url: str, message: EmailMessage) -> None:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
    context = ssl.create_default_context()
    if parts.scheme == "smtps":
        server: smtplib.SMTP = smtplib.SMTP_SSL(host, port, timeout=TIMEOUT_S, context=context)
    else:
        server = smtplib.SMTP(host, port, timeout=TIMEOUT_S)
    with server:
        server.ehlo()
        is_secret = parts.scheme == "smtps"
        if not is_secret and server.has_extn("starttls"):
            server.starttls(context=context)
            server.ehlo()
            is_secret = True
        if parts.username:
            if not is_secret and not is_loopback(host):
                raise MailFailed("the server offers no TLS, so the password is not sent")
            server.login(unquote(parts.username), unquote(parts.password or ""))
        server.send_message(message)
