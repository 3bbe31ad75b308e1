# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Declared remotes: a name for a URL and all that goes with it.

::

    /etc/volt/remotes/<name>.json    {"format": 1, "url", "host", "jobs", "bandwidth", "ca", "storage_class", "credentials", "keys", "share",
                                      "vetted", "lock", "id"}

The file is readable for root only, because it may have credentials. Where a remote is asked for, a text with `://` is a URL, and any other is a name.
"""

from __future__ import annotations

import json
import os
import re
import typing as t

from .._base import NotFound, UsageError, VoltError, files, newer, reason
from . import about, credential, names, s3_client, url

DIRECTORY = "/etc/volt/remotes"
#: The longest lock in days: it cannot be taken back.
LOCK_MOST = 366
HOST, DOMAIN = SHARES = ("host", "domain")
FORMAT = 1
_MOST = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")
_RATE = re.compile(r"(\d+)([KMG]?)\Z")
_DAYS = re.compile(r"(\d{1,4})d\Z")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Settings(t.NamedTuple):
    """A remote, and how this host uses it."""

    url: str
    #: What this host is called there; None: its name and the beginning of its store's id.
    host: t.Optional[str] = None
    #: Packs that are sent at once.
    jobs: int = 4
    #: Bytes a second that are sent at most; None for no limit.
    bandwidth: t.Optional[int] = None
    #: A file of certificates that are trusted in place of the system's.
    ca: t.Optional[str] = None
    #: Of packs, on S3.
    storage_class: t.Optional[str] = None
    #: As `s3_client.check_credentials` wants them; None for those of the environment.
    credentials: t.Optional[t.Mapping[str, str]] = None
    #: The file of this host's keys; None for a remote that is not sealed.
    keys: t.Optional[str] = None
    #: DOMAIN: use packs that other hosts have sent. HOST: those of this host alone.
    share: str = HOST
    #: Use packs of other hosts only if they were vetted.
    vetted: bool = False
    #: Days for which objects are locked, on S3.
    lock: t.Optional[int] = None
    #: Of the remote that was there when it was declared, so that no other takes its place; None where that was not asked.
    id: t.Optional[str] = None

    def text(self) -> str:
        """The file's content."""
        return json.dumps({"format": FORMAT, **self._asdict()}, indent=1, sort_keys=True) + "\n"


def check(settings: Settings) -> Settings:
    """The same settings; UsageError where they are invalid."""
    place = url.parse(settings.url)
    if settings.host is not None and not names.HOST.match(settings.host):
        raise UsageError(f"Host name {settings.host!r} cannot be used on a remote; use letters, digits, dots, underscores and dashes.")
    if settings.id is not None and not about.ID.match(settings.id):
        raise UsageError(f"The remote's id {settings.id!r} is invalid; omit it.")
    if settings.share not in SHARES:
        raise UsageError(f"share {settings.share!r} is invalid; use {HOST} or {DOMAIN}.")
    if settings.vetted and settings.share != DOMAIN:
        raise UsageError(f"Only packs of other hosts are vetted; set `share: {DOMAIN}`, or omit `vetted`.")
    if settings.lock is not None and (place.kind != url.S3 or not 1 <= settings.lock <= LOCK_MOST):
        raise UsageError(f"A lock is only for S3, and for 1d to {LOCK_MOST}d; correct or omit it.")
    if settings.jobs < 1:
        raise UsageError("The number of jobs must be at least 1.")
    if settings.bandwidth is not None and settings.bandwidth < 1:
        raise UsageError("The bandwidth must be at least 1 byte a second.")
    if settings.credentials is not None:
        if place.kind != url.S3:
            raise UsageError("Credentials are only for S3; omit them for a directory.")
        s3_client.check_credentials(s3_client.parse_url(settings.url), settings.credentials)
    return settings


def given(credentials: t.Optional[t.Mapping[str, t.Optional[str]]]) -> t.Optional[t.Dict[str, str]]:
    """Credentials without those that are not set; None where none is."""
    return {name: value for name, value in (credentials or {}).items() if value is not None} or None


def check_keys(text: t.Optional[str]) -> t.Optional[str]:
    """Where a declaration finds the keys of this host; UsageError for what is neither an absolute path nor the name of a credential."""
    name = None if text is None else credential.named(text)
    if name is not None:
        credential.check_name(name)
    elif text is not None and (not os.path.isabs(text) or "\0" in text):
        raise UsageError(f"`keys` {text!r} is invalid; write an absolute path, or credential:NAME.")
    return text


def parse_rate(text: str) -> int:
    """Bytes a second, from a number with or without K, M or G (of 1024)."""
    match = _RATE.match(text.strip())
    if match is None:
        raise UsageError(f"Bandwidth {text!r} is invalid; write bytes a second, such as 500K or 20M.")
    return int(match[1]) * _UNITS[match[2]]


def parse_lock(text: str) -> int:
    """Days, from a number with d."""
    match = _DAYS.match(text.strip())
    if match is None:
        raise UsageError(f"Lock {text!r} is invalid; write days, such as 30d.")
    return int(match[1])


def path(name: str) -> str:
    """Where a remote of this name is declared; UsageError where it cannot be a name."""
    if not _NAME.match(name):
        raise UsageError(f"{name!r} cannot be the name of a remote; use letters, digits, dots, underscores and dashes, or write a URL.")
    return os.path.join(DIRECTORY, f"{name}.json")


def check_text(text: str) -> None:
    """UsageError where a text can be neither the name of a remote nor a URL."""
    if "://" in text:
        url.parse(text)
    else:
        path(text)


def resolve(text: str, credentials: t.Optional[t.Mapping[str, t.Optional[str]]] = None) -> Settings:
    """The remote that a name or a URL means; NotFound for a name that is not declared. :param credentials: in place of those that it has."""
    found = Settings(text) if "://" in text else read(text)
    if found is None:
        raise NotFound(f"Remote {text} is not declared on this host ({path(text)} is missing); declare it with volt_remote, or write its URL.")
    return check(found._replace(credentials=given(credentials) or found.credentials))


def may_mean(text: str, where: str) -> bool:
    """Whether a name or URL means the remote of a URL; also True where that cannot be told, because it is not declared or that cannot be read."""
    try:
        return url.same(resolve(text).url, where)
    except VoltError:
        return True


def read(name: str) -> t.Optional[Settings]:
    """A declared remote; None where there is none of this name."""
    place = path(name)
    try:
        value = json.loads(files.read_file(place, _MOST))
        number = value.pop("format")
        if isinstance(number, int) and not isinstance(number, bool) and number > FORMAT:
            raise newer(f"{place} (format {number})")
        if number != FORMAT or not isinstance(value["url"], str):
            raise ValueError(number)
        return check(Settings(**value))
    except FileNotFoundError:
        return None
    except (files.Unsuitable, ValueError, KeyError, TypeError, AttributeError, RecursionError, UsageError):
        raise VoltError(f"{place} is damaged; declare the remote again.") from None
    except OSError as error:
        raise VoltError(f"{place} cannot be read: {reason(error)}; run as root.") from None


def write(name: str, settings: Settings) -> None:
    """Declare a remote, or change it."""
    place = path(name)
    try:
        os.makedirs(DIRECTORY, 0o700, exist_ok=True)
        files.write_file(place, settings.text().encode())
    except OSError as error:
        raise VoltError(f"{place} could not be written: {reason(error)}; fix that, then declare the remote again.") from None


def remove(name: str) -> None:
    """Forget a remote. What is on it stays."""
    place = path(name)
    try:
        files.unlink(place)
    except OSError as error:
        raise VoltError(f"{place} could not be removed: {reason(error)}; fix that, then try again.") from None


def shown(settings: t.Optional[Settings], made: bool = False) -> str:
    """What a diff may show of a declaration. :param made: the remote was just made, or would be: check mode cannot know its id."""
    if settings is None:
        return ""
    hidden = None if settings.credentials is None else {name: "(secret)" for name in settings.credentials}
    value = json.loads(settings._replace(credentials=hidden).text())
    if made or value["id"] is None:
        del value["id"]
    return json.dumps(value, indent=1, sort_keys=True) + "\n"
