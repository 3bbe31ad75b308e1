# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Sends a message by command, mail or webhook. Imported only when needed: mail, TLS and HTTP take time to load.

A separate process connects to a server, with one deadline for everything. The timeout of a socket limits each step only, so a server that sends
a byte a second would block its caller forever, and a name lookup has no timeout at all.
"""

from __future__ import annotations

import email.message
import email.utils
import http.client
import json
import os
import signal
import smtplib
import ssl
import subprocess
import typing as t
import urllib.error
import urllib.parse
import urllib.request

from .._base import Interrupted, VoltError, process, reason
from . import apart, notification

#: Seconds; the shorter one where a backup waits.
_PATIENCE, _SHORT = 60.0, 15.0

Facts = t.Dict[str, t.Any]


class NotSent(Exception):
    """Why a message was not sent, without secrets from the settings."""


class _Failed(Exception):
    """A program that was to send ended with a failure."""


def send(settings: notification.Settings, name: str, facts: Facts) -> None:
    """Send by one of the settings; NotSent if that fails.

    :param name: command, mail or webhook.
    """
    ways: t.Dict[str, t.Callable[[t.Any, Facts], None]] = {"command": _command, "mail": _mail, "webhook": _webhook}

    def go() -> None:
        ways[name](settings[name], facts)

    # a program has its own deadline, and our output
    why = _try(go) if notification.is_program(settings, name) else _try_apart(go, _PATIENCE)
    if why is not None:
        raise NotSent(why)


def call(url: str, facts: Facts) -> None:
    """Call a URL with names of facts in braces; NotSent if that fails."""
    for name, fact in facts.items():
        url = url.replace(f"{{{name}}}", urllib.parse.quote("" if fact is None else str(fact), safe=""))

    def go() -> None:
        with urllib.request.build_opener().open(url, timeout=_SHORT):
            pass

    why = _try_apart(go, _SHORT)
    if why is not None:
        raise NotSent(why)


def _try(go: t.Callable[[], None]) -> t.Optional[str]:
    """Send; why that failed, if it did."""
    try:
        go()
    except (OSError, ValueError, _Failed, subprocess.TimeoutExpired, smtplib.SMTPException, http.client.HTTPException) as error:
        return _why(error)
    return None


def _try_apart(go: t.Callable[[], None], patience: float) -> t.Optional[str]:
    """The same by a separate process, which has so many seconds for all of it."""

    def work(_answer: apart.Answer) -> t.Optional[str]:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)  # it has nothing to clean up, and a name that is looked up does not wait for a handler
        return _try(go)

    try:
        return t.cast(t.Optional[str], apart.apart(work, patience))
    except apart.Late:
        return f"the server did not answer within {patience:g} s"
    except Interrupted:
        raise
    except VoltError:
        return "the process that sends it ended early"


def _why(error: Exception) -> str:
    """The error, without secrets from the file."""
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code}"
    if isinstance(error, urllib.error.URLError):
        inner = error.reason
        return reason(inner) if isinstance(inner, OSError) and inner.errno else "the server could not be reached"
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return "the server rejected the user or password"
    if isinstance(error, smtplib.SMTPException):
        return f"the server refused ({type(error).__name__})"
    if isinstance(error, _Failed):
        return str(error)
    if isinstance(error, subprocess.TimeoutExpired):
        return f"did not end within {_PATIENCE:.0f} s"
    return reason(error) if isinstance(error, OSError) and error.errno else "the settings are wrong"


def _succeed(done: process.Ended) -> None:
    if done.status:
        raise _Failed(done.how)


def _command(words: t.List[str], facts: Facts) -> None:
    told = {f"VOLT_{name.upper()}": str(fact) for name, fact in facts.items() if fact is not None}
    _succeed(process.run([*words, facts["unit"]], {**os.environ, **told}, patience=_PATIENCE))


def _mail(mail: t.Dict[str, t.Any], facts: Facts) -> None:
    letter = email.message.EmailMessage()
    letter["To"] = mail["to"]
    letter["From"] = mail.get("from") or f"volt-backup@{facts['host']}"
    subject = facts["text"] if len(facts["text"]) < 200 else facts["text"][:199] + "…"
    letter["Subject"] = " ".join(subject.split())
    letter["Date"] = email.utils.formatdate()
    letter["Message-ID"] = email.utils.make_msgid(domain=facts["host"])
    letter["Auto-Submitted"] = "auto-generated"
    letter.set_content("\n".join(f"{name}: {fact}" for name, fact in facts.items() if fact is not None and name != "text") + "\n")
    server = mail.get("smtp")
    if not server:
        _succeed(process.run([notification.SENDMAIL, "-i", "-t"], stdin=letter.as_bytes(), patience=_PATIENCE))
        return
    security = mail.get("security", "none")
    port = mail.get("port") or notification.SECURITY[security]
    context = ssl.create_default_context()
    with smtplib.SMTP_SSL(server, port, timeout=_PATIENCE, context=context) if security == "tls" else smtplib.SMTP(server, port, timeout=_PATIENCE) as to:
        if security == "starttls":
            to.starttls(context=context)
        if mail.get("user"):
            to.login(mail["user"], mail.get("password", ""))
        to.send_message(letter)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A message that follows a redirection loses its content on the way."""

    def redirect_request(self, *_arguments: t.Any) -> None:
        return None


def _webhook(webhook: t.Dict[str, t.Any], facts: Facts) -> None:
    headers = {"Content-Type": "application/json", **{str(name): str(value) for name, value in webhook.get("headers", {}).items()}}
    request = urllib.request.Request(webhook["url"], json.dumps(facts).encode(), headers, method="POST")
    with urllib.request.build_opener(_NoRedirects).open(request, timeout=_PATIENCE):
        pass
