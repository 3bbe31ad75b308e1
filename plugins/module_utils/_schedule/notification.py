# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The settings of notifications: a file that only root can read, because URLs of webhooks and passwords are secrets.

They are in no unit, argument, message or diff. Declaring schedules writes the file, and `volt-backup notify` reads it.
"""

from __future__ import annotations

import json
import os
import re
import typing as t

from .._base import UsageError, VoltError, reason

PATH = "/etc/volt/notify.json"
NAMES = ("command", "mail", "webhook")
#: Sends mail where no server is named.
SENDMAIL = "/usr/sbin/sendmail"
#: How a mail server is spoken to, and at which port unless another is said.
SECURITY = {"none": 25, "starttls": 587, "tls": 465}
_SHAPES: t.Dict[str, t.Dict[str, type]] = {
    "mail": {"to": str, "from": str, "smtp": str, "port": int, "security": str, "user": str, "password": str},
    "webhook": {"url": str, "headers": dict},
}
_SECRET = ("password", "url", "headers")
#: Of a URL, as a client takes it that sends what it is given: server and port; no user, whom this client does not know.
_ADDRESS = re.compile(r"https?://(?:[\w.-]+|\[[0-9a-f:.]+\])(?::(\d{1,5}))?(?:[/?#][!-~]*)?", re.IGNORECASE | re.ASCII)
#: A header. RFC 9110, 5.1 and 5.5.
_HEADER, _FIELD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"), re.compile(r"[\t -~\xa0-\xff]*")

Settings = t.Dict[str, t.Any]


def check(ways: t.Mapping[str, t.Any]) -> Settings:
    """The same without empty settings; UsageError, without secrets, for invalid ones or ones that cannot be sent."""
    found = _shape(ways)
    mail, webhook = found.get("mail", {}), found.get("webhook", {})
    for name in ("to", "from", "smtp"):
        if not mail.get(name, "").isprintable():
            raise UsageError(f"Option {name} of the failure mail must be one line.")
    if not 0 <= mail.get("port", 0) < 1 << 16:
        raise UsageError(f"Option port of the failure mail must be from 1 to 65535 (got {mail['port']}).")
    if webhook and not is_address(webhook["url"]):
        raise UsageError(f"The url of the failure webhook {ADDRESS}.")
    for name, value in webhook.get("headers", {}).items():
        if not (_HEADER.fullmatch(str(name)) and _FIELD.fullmatch(str(value))):
            raise UsageError("A header of the failure webhook is invalid; use letters and dashes in its name, and one line for its value.")
    return found


def _shape(ways: t.Mapping[str, t.Any]) -> Settings:
    command = list(ways.get("command") or [])
    if not all(isinstance(word, str) and "\0" not in word for word in command) or (command and not os.path.isabs(command[0])):
        raise UsageError("The failure command must be a list of words that starts with an absolute path.")
    found: Settings = {"command": command} if command else {}
    for name, shape in _SHAPES.items():
        way = {key: value for key, value in (ways.get(name) or {}).items() if value is not None}
        for key, value in way.items():
            if key not in shape or not isinstance(value, shape[key]):
                raise UsageError(f"Option {key} of the failure {name} is unknown or has the wrong type; see volt_schedule_on_failure.")
        if way:
            found[name] = way
    mail, webhook = found.get("mail"), found.get("webhook")
    if mail is not None and (not mail.get("to") or mail.get("security", "none") not in SECURITY):
        raise UsageError("The failure mail needs an address (to); security must be none, starttls or tls.")
    if webhook is not None and not str(webhook.get("url", "")).lower().startswith(("http://", "https://")):
        raise UsageError("The failure webhook needs a url that starts with https:// or http://.")
    return found


#: What is to be said of a URL that is none.
ADDRESS = "must be a URL that starts with http:// or https://, in ASCII, without spaces and without a user name"


def is_address(url: str) -> bool:
    """Whether a URL can be called."""
    match = _ADDRESS.fullmatch(url)
    return match is not None and int(match[1] or 0) < 1 << 16


def is_program(ways: Settings, name: str) -> bool:
    """Whether a way starts a program of the host, which needs rights that a hardened service has not; the others speak to a server."""
    return name == "command" or (name == "mail" and not ways["mail"].get("smtp"))


def lacking(ways: Settings) -> t.Optional[str]:
    """What a way needs and the host has not, as a sentence."""
    if "mail" in ways and is_program(ways, "mail") and not _can_run(SENDMAIL):
        return f"Failure mails cannot be sent: {SENDMAIL} is not on this host, and no server (smtp) is set; install it, or set a server."
    command = ways.get("command")
    if command and not _can_run(command[0]):
        return f"The failure command {command[0]} is not a program on this host; install it, or set another."
    return None


def _can_run(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def text(ways: Settings) -> t.Optional[str]:
    """The file's content; None without notifications."""
    return json.dumps(ways, indent=1, sort_keys=True) + "\n" if ways else None


def load(path: str = PATH) -> Settings:
    """The settings; empty if there are none. VoltError, without quoting it, for an invalid file.

    One way that cannot be used, which a declaration refuses, must not keep the others from being tried.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return _shape(json.load(file))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise VoltError(f"{path} cannot be read: {reason(error)}; run as root.") from None
    except (ValueError, TypeError, AttributeError, RecursionError, UsageError):
        raise VoltError(f"{path} has no valid notification settings; run the role volt_schedule again.") from None


def shown(content: t.Optional[str]) -> str:
    """What a diff may show of the file."""
    try:
        ways = json.loads(content or "{}")
        for way in (ways.get(name) for name in _SHAPES):
            for key in _SECRET:
                if way and key in way:
                    way[key] = "(secret)"
        return text(ways) or ""
    except (ValueError, AttributeError, TypeError):
        return "(unreadable)\n"
