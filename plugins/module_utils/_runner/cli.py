# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The words of the command, and what each calls."""

from __future__ import annotations

import argparse
import functools
import os
import sys
import typing as t

from .. import _version
from .._backup import create, restore
from .._backup.ids import TYPES
from .._backup.manager import Manager, Query
from .._base.errors import Incomplete, NotFound, Unsupported, UsageError, VoltError, unexpected
from .._base.signals import interruptible
from .._base.text import one_line, show
from . import scheduled, screen, upkeep

STORE, BACKUPS = "/var/lib/volt/cas", "/var/lib/volt/backups"
DONE, FAILED, USAGE, INCOMPLETE, UNSUPPORTED = 0, 1, 2, 3, 7

#: Arguments that hold paths, whose bytes may be any; all other texts are UTF-8.
_PATHS = ("store", "backup_dir", "source", "target", "paths", "exclude")
_CALLED = {"ids": "id", "workload_mode": "mode", "tags": "tag", "keep_tags": "tag", "old": "id", "new": "id"}

Arguments = argparse.Namespace


def parser() -> argparse.ArgumentParser:
    """The command line."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--store", default=STORE, metavar="DIR", help="the store (default: %(default)s)")
    shared.add_argument("--backup-dir", default=BACKUPS, metavar="DIR", help="where the backups' records are (default: %(default)s)")
    shared.add_argument("--lock-timeout", default=300, type=upkeep.count, metavar="SECONDS", help="how long to wait for others (default: %(default)s)")
    shared.add_argument("--json", action="store_true", help="print the result as JSON")
    shared.add_argument("--quiet", action="store_true", help="print nothing but errors")

    limited = argparse.ArgumentParser(add_help=False)
    limited.add_argument("--diff-limit", default=1000, type=upkeep.count, metavar="N", help="how many paths to list (default: %(default)s)")

    top = argparse.ArgumentParser(prog="volt-backup", description="Back up directory trees into a content-addressed store, and restore them.")
    top.add_argument("--version", action="version", version=f"%(prog)s {_version.VERSION}")
    words = top.add_subparsers(dest="word", required=True, metavar="COMMAND")

    def word(name: str, call: t.Callable[[Arguments], int], text: str, *more: argparse.ArgumentParser) -> argparse.ArgumentParser:
        made = words.add_parser(name, help=text, description=text, parents=[shared, *more])
        made.set_defaults(call=call)
        return made

    made = word("create", _create, "back up a directory", limited)
    made.add_argument("workload", metavar="WORKLOAD")
    made.add_argument("--source", required=True, metavar="DIR", help="the directory to back up")
    made.add_argument("--type", default="manual", choices=TYPES)
    made.add_argument("--mode", dest="workload_mode", metavar="MODE", help="kind of workload, such as container")
    made.add_argument("--tag", dest="tags", action="append", default=[], metavar="TAG")
    made.add_argument("--notes", metavar="TEXT")
    made.add_argument("--exclude", action="append", default=[], metavar="PATTERN", help="leave out what matches (as in .gitignore)")
    made.add_argument("--exclude-caches", action="store_true", help="leave out what is in directories with a CACHEDIR.TAG")
    made.add_argument("--one-file-system", action="store_true", help="do not enter other file systems")
    made.add_argument("--compression", default="auto", choices=("auto", "none", "zstd", "zlib"))
    made.add_argument("--only-if-changed", action="store_true", help="make no backup where nothing changed since the newest")
    made.add_argument("--max-age", metavar="SPAN", help="make no backup where the newest is younger, such as 6h")
    made.add_argument("--allow-empty", action="store_true", help="back up an empty source although the newest backup of it is not empty")
    made.add_argument("--allow-incomplete", action="store_true", help="exit 0 also when something could not be read")
    made.add_argument("--dry-run", action="store_true", help="say what would happen, write nothing")

    made = word("list", _list, "list backups, newest first")
    made.add_argument("workload", nargs="?", metavar="WORKLOAD")
    made.add_argument("--type", choices=TYPES)
    made.add_argument("--tag", dest="tags", action="append", default=[], metavar="TAG")
    made.add_argument("--host", metavar="NAME")
    made.add_argument("--since", metavar="TIME")
    made.add_argument("--until", metavar="TIME")
    made.add_argument("--limit", type=int, default=0, metavar="N", help="at most so many (default: all)")

    made = word("show", _show, "show one backup", limited)
    made.add_argument("id", metavar="ID")
    made.add_argument("--contents", action="store_true", help="list what is in it")

    made = word("diff", _diff, "show what changed from one backup to another", limited)
    made.add_argument("old", metavar="ID")
    made.add_argument("new", metavar="ID")

    made = word("restore", _restore, "restore a backup", limited)
    made.add_argument("id", metavar="ID")
    made.add_argument("--target", metavar="DIR", help="where to (default: where it came from)")
    made.add_argument("--force", action="store_true", help="overwrite a target that differs")
    made.add_argument("--strategy", default="auto", choices=restore.STRATEGIES)
    made.add_argument("--delete", action="store_true", help="in place: remove what the backup lacks")
    made.add_argument("--path", dest="paths", action="append", default=[], metavar="P", help="only this path and what is below it")
    made.add_argument("--link", default="auto", choices=restore.LINKS)
    made.add_argument("--verify", action="store_true", help="hash what is in place already, and what is linked")
    made.add_argument("--numeric-owner", action="store_true", help="restore owners by number, not by name")
    made.add_argument("--keep-previous", action="store_true", help="keep the replaced tree beside the target")
    made.add_argument("--dry-run", action="store_true", help="say what would happen, write nothing")

    made = word("delete", _delete, "delete a backup")
    made.add_argument("id", metavar="ID")
    made.add_argument("--dry-run", action="store_true", help="say what would happen, write nothing")

    for entry in (*upkeep.COMMANDS, *scheduled.COMMANDS):
        entry.options(word(entry.name, functools.partial(_upkeep, entry.work), entry.about))
    return top


def _manager(args: Arguments) -> Manager:
    return Manager(args.store, args.backup_dir, args.lock_timeout)


def _say(args: Arguments, value: t.Any, text: t.Callable[[], str]) -> None:
    if args.json:
        screen.as_json(value)
    elif not args.quiet:
        screen.out(text())


def _warn(args: Arguments, warnings: t.Iterable[str]) -> None:
    for warning in warnings:
        if not args.json:
            screen.complain(warning)


def _create(args: Arguments) -> int:
    request = create.CreateRequest(**{name: getattr(args, name) for name in create.CreateRequest._fields})
    manager = _manager(args)
    progress = _progress(args, lambda: manager.expected(workload=args.workload))
    try:
        made = manager.create(request, args.dry_run, progress)
    finally:
        progress.end()
    backup = made.backup
    _warn(args, made.warnings)
    _say(
        args,
        {"backup": backup, "changed": made.changed, "diff": made.diff, "passed_over": made.skipped, "warnings": made.warnings},
        lambda: _created(made),
    )
    return INCOMPLETE if made.changed and not backup["complete"] and not args.allow_incomplete else DONE


def _progress(args: Arguments, expected: t.Callable[[], int]) -> screen.Progress:
    """A progress bar, where somebody watches; only then is it worth a look at what to expect."""
    watched = sys.stderr.isatty() and not args.quiet and not args.json
    return screen.Progress(expected() if watched else 0, watched)


def _created(made: create.Created) -> str:
    backup = made.backup
    if not made.changed:
        return f"Nothing to do: {backup['id']} stands for it.\n"
    counts = made.diff["counts"]
    rows = [
        ("backup", backup["id"] or "(dry run, nothing was written)"),
        ("source", backup["source_path"]),
        ("content", f"{backup['file_count']} files, {screen.size(backup['total_size'])}"),
        ("changes", ", ".join(f"{number} {kind}" for kind, number in counts.items())),
        ("new", f"{backup['new_blobs']} of {backup['blob_count']} blobs, {screen.size(backup['new_bytes'])}"),
        ("stored", f"{screen.size(backup['stored_bytes'])} in {screen.span(backup['duration'])}"),
        ("skipped", f"{backup['skipped_count']} paths" if backup["skipped_count"] else ""),
    ]
    return screen.fields(rows)


def _list(args: Arguments) -> int:
    query = Query(workload=args.workload, type=args.type, tags=args.tags, host=args.host, since=args.since, until=args.until, limit=args.limit)
    found = _manager(args).find(query)
    _say(args, {"backups": found, "count": len(found), "changed": False}, lambda: _listed(found))
    return DONE


def _listed(found: t.Sequence[t.Mapping[str, t.Any]]) -> str:
    if not found:
        return "No backups.\n"
    rows = [
        (
            backup["id"],
            (backup["created_at"] or "")[:19].replace("T", " "),
            screen.size(backup["total_size"]),
            screen.size(backup["new_bytes"]),
            ",".join(backup["tags"]),
            _state(backup),
        )
        for backup in found
    ]
    return screen.table(("ID", "CREATED (UTC)", "SIZE", "NEW", "TAGS", "STATE"), rows, right=(2, 3))


def _state(backup: t.Mapping[str, t.Any]) -> str:
    if backup["damaged"]:
        return f"DAMAGED: {backup['damage']}"
    if backup["unsupported"]:
        return f"unsupported: {backup['unsupported_reason']}"
    return "ok" if backup["complete"] else "incomplete"


def _show(args: Arguments) -> int:
    manager = _manager(args)
    found = manager.find(Query(id=args.id))
    if not found:
        raise _unknown(args)
    backup = found[0]
    value: t.Dict[str, t.Any] = {"backups": found, "count": 1, "changed": False}
    contents: t.Dict[str, t.Any] = {}
    if args.contents:
        contents = value["contents"] = manager.contents(args.id, args.diff_limit)
    _say(args, value, lambda: _shown(backup) + (_contents(contents) if contents else ""))
    return FAILED if backup["damaged"] else UNSUPPORTED if backup["unsupported"] else DONE


def _shown(backup: t.Mapping[str, t.Any]) -> str:
    skipped = "; ".join(f"{item['path']} ({item['reason']})" for item in backup["skipped"] or [])
    return screen.fields(
        [
            ("id", backup["id"]),
            ("state", _state(backup)),
            ("workload", backup["workload_name"]),
            ("mode", backup["workload_mode"]),
            ("type", backup["type"]),
            ("tags", ", ".join(backup["tags"])),
            ("notes", backup["notes"]),
            ("created", backup["created_at"]),
            ("took", screen.span(backup["duration"])),
            ("host", backup["host"]),
            ("source", backup["source_path"]),
            ("content", f"{backup['file_count']} files, {screen.size(backup['total_size'])}"),
            ("new", f"{backup['new_blobs']} of {backup['blob_count']} blobs, {screen.size(backup['new_bytes'])}"),
            ("stored", screen.size(backup["stored_bytes"])),
            ("excluded", ", ".join(backup["exclude"])),
            ("skipped", skipped),
            ("manifest", backup["manifest_ref"]),
        ]
    )


def _contents(contents: t.Dict[str, t.Any]) -> str:
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
        for entry in contents["entries"]
    ]
    more = f"... and {contents['more']} more\n" if contents["more"] else ""
    return "\n" + screen.table(("TYPE", "MODE", "USER", "GROUP", "SIZE", "MODIFIED (UTC)", "PATH"), rows, right=(4,)) + more


def _diff(args: Arguments) -> int:
    found = _manager(args).diff(args.old, args.new, args.diff_limit)
    _say(args, {"diff": found, "changed": False}, lambda: _differences(found))
    return DONE


def _differences(found: t.Dict[str, t.Any]) -> str:
    counts = ", ".join(f"{number} {kind}" for kind, number in found["counts"].items())
    return f"{found['prepared']}{counts}\n"


def _restore(args: Arguments) -> int:
    request = restore.RestoreRequest(**{name: getattr(args, name) for name in restore.RestoreRequest._fields})
    manager = _manager(args)
    progress = _progress(args, lambda: manager.expected(backup=args.id))
    try:
        done, passed = manager.restore(args.id, request, dry=args.dry_run, progress=progress)
    finally:
        progress.end()
    _warn(args, done.warnings)
    value = {"restore": done.restore, "changed": done.changed, "diff": done.diff, "passed_over": passed, "warnings": done.warnings}
    _say(args, value, lambda: _restored(done, args.dry_run))
    return DONE


def _restored(done: restore.Restored, dry: bool) -> str:
    result = done.restore
    if not done.changed:
        return f"Nothing to do: {one_line(result['target_dir'])} equals {result['backup_id']}.\n"
    counts = ", ".join(f"{number} {kind}" for kind, number in done.diff["counts"].items())
    files = f"{result['files_copied']} copied, {result['files_linked']} linked, {result['files_unchanged']} unchanged"
    return screen.fields(
        [
            ("backup", result["backup_id"]),
            ("target", result["target_dir"] + (" (dry run, nothing was written)" if dry else "")),
            ("strategy", result["strategy"]),
            ("changes", counts),
            ("files", "" if dry else files),
            ("previous", result["previous"]),
            ("took", screen.span(result["duration"])),
        ]
    )


def _delete(args: Arguments) -> int:
    found = _manager(args).delete(args.id, args.dry_run)
    if found is None:
        raise _unknown(args)
    verb = "Would delete" if args.dry_run else "Deleted"
    _say(args, {"backup": found, "changed": True}, lambda: f"{verb} {args.id}.\n")
    return DONE


def _upkeep(work: t.Callable[[Arguments, Manager], upkeep.Outcome], args: Arguments) -> int:
    outcome = work(args, _manager(args))
    _warn(args, outcome.value.get("warnings", ()))
    if outcome.failure is None or not args.json:
        _say(args, outcome.value, outcome.text)
    if outcome.failure is not None:
        raise outcome.failure
    return outcome.status


def _unknown(args: Arguments) -> NotFound:
    return NotFound(f"There is no backup {args.id} in {args.backup_dir}; list the backups to see which there are.")


def _check_texts(args: Arguments) -> None:
    """UsageError for a text that is not UTF-8: it would be kept for ever and could be shown nowhere."""
    for name, value in vars(args).items():
        for text in value if isinstance(value, list) else [value]:
            if name not in _PATHS and isinstance(text, str) and not text.isascii():
                try:
                    text.encode()
                except UnicodeEncodeError:
                    raise UsageError(f"The {_CALLED.get(name, name)} {show(text)} is not valid UTF-8; write it in UTF-8.") from None


#: Exit status by error; all others are FAILED.
_STATUS = {UsageError: USAGE, Incomplete: INCOMPLETE, Unsupported: UNSUPPORTED}


def _failed(args: Arguments, message: str, code: str, **details: t.Any) -> None:
    if args.json:
        screen.as_json({"failed": True, "msg": message, "code": code, **details})
    screen.complain(message)


def main(words: t.Optional[t.Sequence[str]] = None) -> int:
    """Run one command; its exit status."""
    args = parser().parse_args(words)
    try:
        _check_texts(args)
        with interruptible():
            return t.cast(int, args.call(args))
    except VoltError as error:
        _failed(args, error.message, error.code, **error.details)
        return _STATUS.get(type(error), FAILED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        _failed(args, unexpected(error, show(error.filename) if isinstance(error.filename, (str, bytes)) else "").message, VoltError.code)
        return FAILED
