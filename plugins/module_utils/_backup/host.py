# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""This host: which one it is, and the host file, which names the store of its backups for commands that name none.

::

    /etc/volt/backup.json    {"format": 1, "store": "<path>", "backup_dir": "<path>", "store_id": "<the store's id>" or null}

The host file is written with the first schedule that is declared, is there for all to read, and goes with the last schedule.
"""

from __future__ import annotations

import json
import os
import re
import typing as t

from .._base import StoreError, check_format, files, parse, reason
from .records import utf8

PATH = "/etc/volt/backup.json"
MODE = 0o644
FORMAT = 1
#: Where backups are if nothing says otherwise.
STORE, BACKUP_DIR = "/var/lib/volt/cas", "/var/lib/volt/backups"
_MOST = 65536
_ID = re.compile(r"[0-9a-f]{32}\Z")


class Hidden(StoreError):
    """The host file may not be read by this user."""


class Home(t.NamedTuple):
    """Where a host's backups are; paths as a user wrote them. `store_id` is None as long as there is no store."""

    store: str = STORE
    backup_dir: str = BACKUP_DIR
    store_id: t.Optional[str] = None

    def text(self) -> str:
        """The file's content."""
        return json.dumps({"format": FORMAT, **self._asdict()}, indent=1, sort_keys=True) + "\n"


def read() -> t.Optional[Home]:
    """What the host file says; None where there is none, Unsupported for one of a newer version, StoreError for one that cannot be read."""
    try:
        value = json.loads(files.read_file(PATH, _MOST))
        check_format(value["format"], FORMAT, PATH)
        found = Home(*(value[name] for name in Home._fields))
        if not all(os.path.isabs(parse(place)) for place in found[:2]) or found.store_id is not None and not _ID.match(found.store_id):
            raise ValueError(value)
        return found
    except FileNotFoundError:
        return None
    except PermissionError:
        raise Hidden(
            f"{PATH} contains the location of this host's backups but cannot be read by this user; run as root, or set `store` and `backup_dir`."
        ) from None
    except (files.Unsuitable, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise StoreError(
            f"{PATH} is damaged, so the location of this host's backups is unknown; restore the file from a copy, or remove it and declare the schedules again."
        ) from None
    except OSError as error:
        raise StoreError(f"{PATH} cannot be read: {reason(error)}; fix that, or set `store` and `backup_dir`.") from None


def write(home: Home) -> None:
    """Write the host file anew."""
    try:
        files.write_file(PATH, home.text().encode(), mode=MODE)
    except OSError as error:
        raise StoreError(f"{PATH} could not be written: {reason(error)}; fix that, then declare the schedules again.") from None


def absolute(path: str) -> str:
    """A path that a user wrote, as the system takes it."""
    return os.fsdecode(os.path.abspath(parse(os.path.expanduser(path))))


def is_same(one: str, other: str) -> bool:
    """Whether two paths that users wrote lead to the same place, however they are spelt: by a link or another mount as well."""
    first, second = absolute(one), absolute(other)
    if os.path.realpath(first) == os.path.realpath(second):
        return True
    try:
        return os.path.samefile(first, second)
    except OSError:  # one of them is not there
        return False


def resolve(store: t.Optional[str], backup_dir: t.Optional[str]) -> t.Tuple[str, str]:
    """Store and backup directory that are meant where one of them, or both, are not named (None)."""
    if store is not None and backup_dir is not None:
        return store, backup_dir
    home = read() or Home()
    if store is not None:
        return store, home.backup_dir if is_same(home.store, store) else BACKUP_DIR
    if backup_dir is not None:
        return home.store if is_same(home.backup_dir, backup_dir) else STORE, backup_dir
    return home.store, home.backup_dir


def name() -> str:
    """This host's name, as of gethostname(2)."""
    return os.uname().nodename


def machine_id() -> t.Optional[str]:
    """This host's machine id (machine-id(5)), if it has one."""
    try:
        with open("/etc/machine-id", encoding="ascii") as file:
            return file.read().strip() or None
    except (OSError, ValueError):
        return None


def made_here() -> t.Callable[[t.Mapping[str, t.Any]], bool]:
    """Tells whether this host made a backup: by machine id, or by host name where one of both has none. A store may hold another host's backups."""
    here, called = machine_id(), utf8(name())

    def told(backup: t.Mapping[str, t.Any]) -> bool:
        there = backup.get("host_id")
        return there == here if there and here else backup["host"] == called

    return told
