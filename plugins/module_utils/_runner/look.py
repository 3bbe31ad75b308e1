# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The commands that look into backups: ls, cat, export, find and history. Each is an entry of COMMANDS."""

from __future__ import annotations

import base64
import functools
import itertools
import os
import sys
import typing as t

from .._backup.manager import Manager
from .._backup.query import Query
from .._base import UsageError, VoltError, files, one_line, reason, show
from . import screen
from .remotes import REMOTE, opened
from .upkeep import CHOSEN, DIFF_LIMIT, DONE, INCOMPLETE, PATHS, SINCE, UNTIL, Arguments, Command, Options, Outcome, argument, expect

if t.TYPE_CHECKING:
    from .._backup.origin import Origin
    from .._backup.search import Search

#: Bytes of a file that a result in JSON may have.
_JSON_MOST = 16 << 20
#: Which backup is meant, and where it is.
_BACKUP = (CHOSEN, *REMOTE)


def _opened(args: Arguments, manager: Manager, everything: bool = False) -> t.ContextManager[Origin]:
    """The backup that is meant, to read from. :param everything: all of it will be read."""
    return opened(args, manager).opened(args.id, everything) if args.remote is not None else manager.opened(args.id)


# ---- ls


def _ls_options() -> Options:
    return (
        *_BACKUP,
        argument("path", nargs="?", metavar="PATH", help="a path of the backup, with or without the source in front (default: the source)"),
        argument("--recursive", action="store_true", help="also list what is below the directories"),
    )


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
            _path(entry),
        )
        for entry in listed
    ]
    return screen.fitted(("TYPE", "MODE", "USER", "GROUP", "SIZE", "MODIFIED (UTC)", "PATH"), rows, right=(4,), wrap=False)


# ---- cat


def _cat_options() -> Options:
    return (
        *_BACKUP,
        argument("path", metavar="PATH", help="a file of the backup, with or without the source in front"),
    )


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


# ---- export


def _export_options() -> Options:
    return (
        *_BACKUP,
        argument("--tar", action="store_true", default=True, help="as a tar archive in the format pax (the default)"),
        PATHS,
        argument("--output", metavar="FILE", help="write the archive to this file (default: to standard output)"),
    )


def _export(args: Arguments, manager: Manager) -> Outcome:
    from .._backup.export import Exporter, result

    if args.output is None and (args.json or sys.stdout.isatty()):
        raise UsageError("An archive cannot be printed on a terminal or with --json; redirect it, or name a file with --output.")
    if args.output is not None and os.path.lexists(args.output) and not os.path.isfile(args.output):
        raise UsageError(f"Archive {show(args.output)} exists and is not a file; name another one, or redirect the output.")
    with _opened(args, manager, not args.paths) as origin:
        exporter = Exporter(origin, args.paths)
        if args.output is None:
            for _piece in itertools.takewhile(screen.write, exporter):
                pass
        else:
            try:
                files.write_file(os.path.abspath(args.output), exporter)
            except OSError as error:
                raise VoltError(f"Archive {show(args.output)} cannot be written: {reason(error)}; fix that, then run again.") from None
        value = {**result(exporter, origin), "changed": args.output is not None}
    text = f"Wrote {value['members']} members, {screen.size(value['size'])}, of {value['backup_id']}.\n"
    return Outcome(value, lambda: "" if args.output is None else text)


# ---- find, history


#: Which backups are searched.
_FILTERS = (
    argument("--workload", metavar="WORKLOAD", help="search only this workload's backups"),
    argument("--host", metavar="NAME", help="search only backups made on this host"),
    SINCE,
    UNTIL,
    *REMOTE,
)


def _searched(args: Arguments, manager: Manager, pattern: t.Optional[str]) -> t.ContextManager[Search]:
    """A search through the backups that match. :param pattern: what will be searched; None for a path."""
    from .._backup.search import reads_all

    everything = reads_all(pattern)
    query = Query(workload=args.workload, host=args.host, since=args.since, until=args.until)
    if args.remote is not None:
        return opened(args, manager).searched(query, everything)
    expect(manager, args.workload)
    return manager.searched(query)


def _searching(found: t.Dict[str, t.Any], text: t.Callable[[t.Mapping[str, t.Any]], str]) -> Outcome:
    """The outcome of a search: incomplete if a backup could not be searched."""
    return Outcome({**found, "changed": False}, lambda: text(found), status=INCOMPLETE if found["not_searched"] else DONE)


def _find_options() -> Options:
    return (
        argument("pattern", metavar="PATTERN", help="a name or a path as in .gitignore, such as '*.conf' or /conf/app.conf"),
        *_FILTERS,
        DIFF_LIMIT,
    )


def _find(args: Arguments, manager: Manager) -> Outcome:
    with _searched(args, manager, args.pattern) as search:
        return _searching(search.find(args.pattern, args.diff_limit), _matches)


def _matches(value: t.Mapping[str, t.Any]) -> str:
    rows = [
        (_bytes(row), row["mtime"][:19].replace("T", " "), row["count"], _time(row["first_at"]), row["last_id"], _path(row))
        for row in value["matches"]
    ]
    if not value["count"]:
        return f"Nothing found in {value['searched']} backups.\n"
    more = f"... and {value['more']} more (--diff-limit)\n" if value["more"] else ""
    head = ("SIZE", "MODIFIED (UTC)", "BACKUPS", "FIRST BACKUP (UTC)", "NEWEST BACKUP", "PATH")
    return (screen.fitted(head, rows, right=(0, 2), wrap=False) if rows else "") + more


def _history_options() -> Options:
    return (
        argument("path", metavar="PATH", help="a path, with or without the source in front"),
        *_FILTERS,
    )


def _history(args: Arguments, manager: Manager) -> Outcome:
    with _searched(args, manager, None) as search:
        return _searching(search.history(args.path), _versions)


def _versions(value: t.Mapping[str, t.Any]) -> str:
    rows = [
        (
            row["first_id"],
            row["count"],
            _bytes(row),
            (row["mtime"] or "")[:19].replace("T", " "),
            row["mode"],
            row["user"] or row["uid"],
            row["group"] or row["gid"],
            ", ".join(row["changes"]),
        )
        for row in value["history"]
    ]
    return screen.fitted(("FIRST BACKUP", "BACKUPS", "SIZE", "MODIFIED (UTC)", "MODE", "USER", "GROUP", "CHANGES"), rows, right=(1, 2)) if rows else ""


def _bytes(row: t.Mapping[str, t.Any]) -> str:
    return screen.size(row["size"]) if row["type"] == "file" else row["type"] or ""


def _time(text: str) -> str:
    return text[:16].replace("T", " ")


def _path(row: t.Mapping[str, t.Any]) -> str:
    return one_line(row["path"]) + (f" -> {one_line(row['target'])}" if row["target"] else "")


COMMANDS = (
    Command("ls", "list a directory of a backup", _ls_options, _ls),
    Command("cat", "print a file of a backup", _cat_options, _cat),
    Command("export", "write a backup as a tar archive", _export_options, _export),
    Command("find", "find files in all backups", _find_options, _find),
    Command("history", "list the versions of a path in all backups", _history_options, _history),
)
