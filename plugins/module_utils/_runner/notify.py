# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Telling people that a unit failed: a command, mail, a webhook, or all of them.

`volt-cas-failure@.service` calls this. Every way is tried, and what failed of them is said at the end, without the secrets that a way may have.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import email.message
import email.utils
import http.client
import json
import os
import smtplib
import socket
import ssl
import subprocess
import typing as t
import urllib.error
import urllib.request

from .._backup.ids import is_workload
from .._base.errors import UsageError, VoltError, reason
from .._base.text import parse
from .._base.time import show_time
from .._schedule import job as jobs, notification as settings, process, status, systemd
from .._schedule.record import RunRecord
from .upkeep import Arguments, Command, Manager, Outcome

_SENDMAIL = "/usr/sbin/sendmail"
_PATIENCE = 60.0

Facts = t.Dict[str, t.Any]


class NotTold(VoltError):
    """Somebody was to be told, and could not be."""

    code = "notify"


class _Failed(Exception):
    """A program that was to tell ended with a failure."""


def facts_of(unit: str) -> Facts:
    """What is known of a unit's failure."""
    host = socket.gethostname()
    workload = unit[len("volt-backup-") :] if unit.startswith("volt-backup-") and is_workload(unit[len("volt-backup-") :]) else None
    if workload:
        with contextlib.suppress(VoltError):  # that it cannot be noted keeps nobody from being told
            note_failure(workload, unit)
    note = RunRecord(workload).read() if workload else {}
    failure = note.get("failure", {})
    why = failure.get("reason") or f"See journalctl -u {unit}."
    success = note.get("success", {}).get("at")
    return {
        "text": f"{f'Backup of {workload}' if workload else unit} failed on {host}: {why}",
        "event": "failure",
        "host": host,
        "unit": unit,
        "workload": workload,
        "reason": why,
        "failures": note.get("failures"),
        "last_success": show_time(datetime.datetime.fromtimestamp(success, datetime.timezone.utc)) if success else None,
    }


def note_failure(workload: str, unit: str) -> None:
    """Note a failure that no line of the unit could: one that was killed, or whose command is gone."""
    shown = systemd.show([f"{unit}.service"], "ActiveState", "InvocationID", "Result").get(f"{unit}.service", {}) if systemd.running() else {}
    invocation = shown.get("InvocationID", "") if shown.get("ActiveState") == "failed" else ""  # else another run has come since
    record = RunRecord(workload)
    if invocation and record.read().get("failure", {}).get("invocation") != invocation:
        record.fail(VoltError(f"{unit}.service failed ({shown.get('Result')}) and could not note why; see journalctl -u {unit}."), invocation)
        metrics = jobs.load(workload).metrics
        if metrics is not None:
            status.write_metrics(os.fsdecode(parse(metrics)))


def tell(ways: settings.Settings, facts: Facts) -> None:
    """By every way; NotTold names those that failed."""
    against = []
    for name, way in (("command", _command), ("mail", _mail), ("webhook", _webhook)):
        if ways.get(name):
            try:
                way(ways[name], facts)
            except (OSError, ValueError, _Failed, subprocess.TimeoutExpired, smtplib.SMTPException, http.client.HTTPException) as error:
                against.append(f"{name}: {_why(error)}")
    if against:
        raise NotTold(f"Nobody was told by {'; '.join(against)}. What was to be told: {facts['text']}")


def _why(error: Exception) -> str:
    """What went wrong, without a word of what only the file may hold."""
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code}"
    if isinstance(error, urllib.error.URLError):
        inner = error.reason
        return reason(inner) if isinstance(inner, OSError) and inner.errno else "the server was not reached"
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return "the server refused user and password"
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
        _succeed(process.run([_SENDMAIL, "-i", "-t"], stdin=letter.as_bytes(), patience=_PATIENCE))
        return
    security = mail.get("security", "none")
    port = mail.get("port") or settings.SECURITY[security]
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


# ---- the word


def _options(made: argparse.ArgumentParser) -> None:
    made.add_argument("unit", metavar="UNIT", nargs="?", help="the unit that failed")
    made.add_argument("--test", action="store_true", help="tell of a failure that is none, to see that it arrives")


def _notify(args: Arguments, _manager: Manager) -> Outcome:
    if bool(args.unit) == args.test:
        raise UsageError("Say which unit failed, or --test.")
    ways = settings.load()
    facts = facts_of(args.unit or "test")
    if args.test:
        facts.update(text=f"This is a test of volt-backup on {facts['host']}; nothing failed.", event="test", reason="This is a test.")
    used = [name for name in settings.NAMES if name in ways]
    if args.test and not used:
        raise NotTold(f"There is nobody to tell: {settings.PATH} is not there. Set volt_schedule_on_failure of the role volt_schedule or its kin.")
    tell(ways, facts)
    told = f"Told by {', '.join(used)}." if used else "Nobody is to be told."
    return Outcome({"changed": False, "told": used, **facts}, lambda: f"{facts['text']} {told}\n")


COMMANDS = (Command("notify", "tell people that a unit failed; units call it", _options, _notify),)
