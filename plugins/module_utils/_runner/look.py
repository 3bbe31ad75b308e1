# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The commands that look into backups: ls and cat. Each is an entry of COMMANDS."""

from __future__ import annotations

import argparse
import base64
import functools
import typing as t

from .._backup.manager import Manager
from .._base import UsageError, one_line
from . import screen
from .remotes import opened, remote_option
from .upkeep import Arguments, Command, Outcome

if t.TYPE_CHECKING:
    from .._backup.origin import Origin

#: Bytes of a file that a result in JSON may have.
_JSON_MOST = 16 << 20
_BACKUP = "a backup's id, a workload (its newest good backup), or latest, with one workload only"


def _backup_option(made: argparse.ArgumentParser) -> None:
    """Which backup is meant, and where it is."""
    made.add_argument("id", metavar="ID|WORKLOAD|latest", help=_BACKUP)
    remote_option(made)


def _opened(args: Arguments, manager: Manager, everything: bool = False) -> t.ContextManager[Origin]:
    """The backup that is meant, to read from. :param everything: all of it will be read."""
    return opened(args, manager).opened(args.id, everything) if args.remote is not None else manager.opened(args.id)


# ---- ls


def _ls_options(made: argparse.ArgumentParser) -> None:
    _backup_option(made)
    made.add_argument("path", nargs="?", metavar="PATH", help="a path of the backup, with or without the source in front (default: the source)")
    made.add_argument("--recursive", action="store_true", help="also list what is below the directories")


def _ls(args: Arguments, manager: Manager) -> Outcome:
    from .._backup import listing

    with _opened(args, manager) as origin:
        found = listing.listed(origin, args.path, args.recursive)
        warnings = [*origin.troubles]
    return Outcome({**found, "changed": False, "warnings": warnings}, lambda: entries(found["entries"]) if found["entries"] else "")


def entries(listed: t.Sequence[t.Mapping[str, t.Any]]) -> str:
    """A table of entries of a backup."""
    rows = [
        (
            entry["type"],
            entry["mode"],
            entry["user"] or entry["uid"],
            entry["group"] or entry["gid"],
            screen.size(entry["size"]) if entry["type"] == "file" else "",
            entry["mtime"][:19].replace("T", " "),
            one_line(entry["path"]) + (f" -> {one_line(entry['target'])}" if entry["target"] else ""),
        )
        for entry in listed
    ]
    return screen.fitted(("TYPE", "MODE", "USER", "GROUP", "SIZE", "MODIFIED (UTC)", "PATH"), rows, right=(4,), wrap=False)


# ---- cat


def _cat_options(made: argparse.ArgumentParser) -> None:
    _backup_option(made)
    made.add_argument("path", metavar="PATH", help="a file of the backup, with or without the source in front")


def _cat(args: Arguments, manager: Manager) -> Outcome:
    from .._backup import dump, listing

    kept: t.List[bytes] = []
    with _opened(args, manager) as origin:
        place = listing.place(origin, args.path)
        if args.json and place.entry.size > _JSON_MOST:
            raise UsageError(f"{one_line(args.path)} has {place.entry.size} bytes, too many for a result in JSON (at most {_JSON_MOST}); omit --json.")
        dump.copy(origin, place, functools.partial(_keep, kept) if args.json else _check if args.quiet else screen.write)
        value = {
            **listing.describe(*place, origin.manifest()), "backup_id": origin.sidecar["id"], "changed": False, "warnings": [*origin.troubles],
            "encoding": "base64", "content": base64.b64encode(b"".join(kept)).decode(),
        }  # fmt: skip
    return Outcome(value, str)


def _keep(kept: t.List[bytes], data: bytes) -> bool:
    kept.append(data)
    return True


def _check(_data: bytes) -> bool:
    """It was hashed, and is not printed."""
    return True


COMMANDS = (
    Command("ls", "list a directory of a backup", _ls_options, _ls),
    Command("cat", "print a file of a backup", _cat_options, _cat),
)
