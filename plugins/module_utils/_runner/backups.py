# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The commands about backups: make, list, show, compare, restore, delete and accept them. Each is an entry of COMMANDS."""

from __future__ import annotations

import argparse
import sys
import typing as t

from .._backup.catalog import workload_of
from .._backup.ids import TYPES
from .._backup.manager import Manager
from .._backup.query import Query
from .._base import NotFound, UsageError, VoltError, one_line
from . import look, screen
from .remotes import REMOTE, opened
from .upkeep import (
    CHOSEN,
    DIFF_LIMIT,
    DONE,
    DRY_RUN,
    FAILED,
    ID,
    INCOMPLETE,
    PATHS,
    SINCE,
    UNSUPPORTED,
    UNTIL,
    Arguments,
    Command,
    Options,
    Outcome,
    argument,
    count,
    expect,
    words,
)

if t.TYPE_CHECKING:
    from .._backup.create import Created
    from .._backup.differ import Difference
    from .._backup.marks import Marked
    from .._backup.records import Listed
    from .._backup.restore import Restored

Backup = t.Mapping[str, t.Any]
_DRY_RUN = argument("--dry-run", action="store_true", help="list what would change, write nothing")


# ---- create


def _create_options() -> Options:
    from .._backup.brake import MAX_CHURN, MAX_SHRINK

    return (
        argument("workload", metavar="WORKLOAD", help="name of what is backed up"),
        argument("--source", metavar="DIR", help="the directory to back up"),
        argument("--stdin", metavar="NAME", help="back up what is piped in, as a file of this name"),
        argument("--command", type=words, default=(), metavar="WORDS", help="back up the output of a program, fail if it fails (quoted as in a shell)"),
        argument("--command-file", metavar="NAME", help="name of the file with that output (default: that of the program)"),
        argument("--dump", dest="dumps", type=_dump, action="append", default=[], metavar="SYSTEM:KEY=VALUE,...",
                 help="dump a database into the backup, such as postgresql:database=shop (repeatable)"),  # fmt: skip
        argument("--snapshot", default="none", choices=("none", "auto", "require"),
                 help="read file system snapshots: where possible, or fail (default: %(default)s)"),  # fmt: skip
        argument("--snapshot-size", metavar="SIZE", help="space of a classic LVM snapshot, such as 10G (default: 20%% of the volume, or what is free)"),
        argument("--quiesce", default="none", choices=("none", "pause", "stop"),
                 help="keep the containers and machines still that use the source (default: %(default)s)"),  # fmt: skip
        argument("--type", default="manual", choices=TYPES, help="what the backup is for (default: %(default)s)"),
        argument("--mode", dest="workload_mode", metavar="MODE", help="kind of workload, such as container"),
        argument("--tag", dest="tags", action="append", default=[], metavar="TAG", help="a label (repeatable)"),
        argument("--notes", metavar="TEXT", help="a comment to store with the backup"),
        argument("--exclude", action="append", default=[], metavar="PATTERN", help="exclude what matches (patterns as in .gitignore)"),
        argument("--exclude-caches", action="store_true", help="exclude directories that contain a CACHEDIR.TAG file"),
        argument("--one-file-system", action="store_true", help="do not enter other file systems"),
        argument("--compression", default="auto", choices=("auto", "none", "zstd", "zlib"), help="how content is stored (default: %(default)s)"),
        argument("--only-if-changed", action="store_true", help="skip the backup if nothing changed since the newest"),
        argument("--max-age", metavar="SPAN", help="skip the backup if the newest is younger than this, such as 6h"),
        argument("--allow-empty", action="store_true", help="back up an empty source even if its newest backup is not empty"),
        argument("--unstable-ok", action="append", default=[], metavar="PATTERN", help="files that may change during the backup (as in .gitignore)"),
        argument("--fail-on-unstable", action="store_true", help="exit 1 if files changed during the backup"),
        argument("--max-shrink", default=MAX_SHRINK, type=count, metavar="PERCENT", help="suspect if more files are gone (default: %(default)s; 0: off)"),
        argument("--max-churn", default=MAX_CHURN, type=count, metavar="PERCENT", help="suspect if more look encrypted (default: %(default)s; 0: off)"),
        argument("--allow-incomplete", action="store_true", help="exit 0 even if something could not be read"),
        _DRY_RUN,
        DIFF_LIMIT,
    )


def _dump(text: str) -> t.Dict[str, t.Dict[str, t.Any]]:
    """A dump as the modules' option has it."""
    system, _colon, options = text.partition(":")
    pairs = [pair.partition("=") for pair in options.split(",") if pair]
    found: t.Dict[str, t.Any] = {key: value for key, _equals, value in pairs}
    for key in {"globals", "oplog"} & set(found):
        if found[key].lower() not in ("yes", "true", "no", "false"):
            raise argparse.ArgumentTypeError(f"{key} must be yes or no")
        found[key] = found[key].lower() in ("yes", "true")
    return {system: found}


def _create(args: Arguments, manager: Manager) -> Outcome:
    from .._backup.create import CreateRequest
    from .._backup.guards import suspect, unstable

    given = {name: getattr(args, name) for name in CreateRequest._fields}
    request = CreateRequest(**{**given, "stdin": (args.stdin, sys.stdin.buffer) if args.stdin is not None else None})
    with screen.progress(args.quiet or args.json, lambda: manager.expected(workload=args.workload)) as progress:
        made = manager.create(request, args.dry_run, progress)
    incomplete = made.changed and not made.backup["complete"] and not args.allow_incomplete
    value = {"backup": made.backup, "changed": made.changed, "diff": made.diff, "passed_over": made.skipped, "warnings": made.warnings}
    failure: t.Optional[VoltError] = None
    if made.changed and made.backup["suspect"]:
        failure = suspect(value)
    elif made.changed and made.backup["unstable"] and args.fail_on_unstable:
        failure = unstable(value)
    return Outcome(value, lambda: _created(made, args.dry_run), failure, INCOMPLETE if incomplete else DONE)


def _created(made: Created, dry: bool) -> str:
    backup = made.backup
    if not made.changed:
        return f"Nothing to do: {backup['id']} is current.\n"
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
    return screen.fields(rows) + _paths(made.diff, dry)


def _paths(diff: t.Dict[str, t.Any], dry: bool) -> str:
    """The list of a dry run: + new, ~ changed, - removed."""
    return f"\n{diff['prepared']}" if dry and diff["prepared"] else ""


# ---- list


def _list_options() -> Options:
    return (
        argument("workload", nargs="?", metavar="WORKLOAD", help="list only this workload's backups"),
        argument("--type", choices=TYPES, help="list only backups of this type"),
        argument("--tag", dest="tags", action="append", default=[], metavar="TAG", help="list only backups with this label (repeatable: with all of them)"),
        argument("--host", metavar="NAME", help="list only backups made on this host"),
        SINCE,
        UNTIL,
        argument("--limit", type=int, default=0, metavar="N", help="list at most this many (default: all)"),
        *REMOTE,
    )


def _list(args: Arguments, manager: Manager) -> Outcome:
    query = Query(workload=args.workload, type=args.type, tags=args.tags, host=args.host, since=args.since, until=args.until, limit=args.limit)
    warnings: t.Sequence[str] = ()
    if args.remote is not None:
        remote = opened(args, manager)
        found, warnings = remote.find(query)
        where = remote.transport.where
    else:
        found = manager.find(query)
        where = manager.where
        if not found:
            expect(manager, args.workload)
    return Outcome({"backups": found, "count": len(found), "changed": False, "warnings": warnings}, lambda: _listed(found, where))


def _listed(found: t.Sequence[Backup], where: str) -> str:
    if not found:
        return f"No backups in {where}.\n"
    rows = [
        (
            backup["id"],
            screen.ago(backup["created_at"]),
            screen.size(backup["total_size"]),
            screen.size(backup["new_bytes"]),
            ",".join(backup["tags"]),
            _state(backup),
        )
        for backup in found
    ]
    return screen.fitted(("ID", "AGE", "SIZE", "NEW", "TAGS", "STATE"), rows, right=(1, 2, 3))


def _state(backup: Backup) -> str:
    if backup["damaged"]:
        return f"DAMAGED: {backup['damage']}"
    if backup["unsupported"]:
        return f"unsupported: {backup['unsupported_reason']}"
    if backup["foreign"]:
        return f"foreign: {backup['foreign_reason']}"
    words = ["time in the future"] if backup["future"] else []
    words += [f"SUSPECT: {backup['suspect_reason']}"] if backup["suspect"] else []
    words += [] if backup["complete"] else ["incomplete"]
    words += [f"unstable: {backup['unstable_count']} file(s)"] if backup["unstable"] else []
    words += ["not checked"] if backup["checked"] is False else []
    return ", ".join(words or ["ok"]) + (", protected" if backup["protected"] else "")


# ---- show


def _show_options() -> Options:
    return (
        ID,
        argument("--contents", action="store_true", help="also list the files of the backup"),
        argument("--diff-limit", type=count, metavar="N", help="how many paths to list (default: all)"),
        *REMOTE,
    )


def _show(args: Arguments, manager: Manager) -> Outcome:
    contents: t.Dict[str, t.Any] = {}
    if args.remote is not None:
        found, contents = _on_remote(args, manager)
    else:
        found = manager.find(Query(id=args.id))
        if not found:
            raise _unknown(args.id, manager)
        if args.contents:
            contents = manager.contents(args.id, args.diff_limit)
    backup = found[0]
    value: t.Dict[str, t.Any] = {"backups": found, "count": 1, "changed": False}
    if args.contents:
        value["contents"] = contents
    status = FAILED if backup["damaged"] else UNSUPPORTED if backup["unsupported"] else DONE
    return Outcome(value, lambda: _shown(backup) + (_contents(contents) if contents else ""), status=status)


def _on_remote(args: Arguments, manager: Manager) -> t.Tuple[t.Sequence[Listed], t.Dict[str, t.Any]]:
    """A backup of a remote, by `<host>/<id>`, or by an id of any host; and its contents, if they are asked for."""
    host, _slash, backup = args.id.rpartition("/")
    remote = opened(args, manager)
    found = remote.find(Query(host=host or None, id=backup))[0][:1]
    if not found:
        raise NotFound(f"{remote.transport.where} has no backup {args.id}; run `volt-backup list --remote {args.remote}` to see what it has.")
    return found, remote.contents(remote.meant(found[0]["id"]), args.diff_limit) if args.contents else {}


def _shown(backup: Backup) -> str:
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
            ("checked", backup["checked_at"] or _unchecked(backup)),
            ("took", screen.span(backup["duration"])),
            ("host", backup["host"]),
            ("source", backup["source_path"]),
            ("content", f"{backup['file_count']} files, {screen.size(backup['total_size'])}"),
            ("new", f"{backup['new_blobs']} of {backup['blob_count']} blobs, {screen.size(backup['new_bytes'])}"),
            ("stored", screen.size(backup["stored_bytes"])),
            ("excluded", ", ".join(backup["exclude"])),
            ("skipped", skipped),
            ("unstable", "; ".join(backup["unstable_paths"] or [])),
            ("accepted", f"by {backup['accepted_by']}, {backup['accepted_at']}; {backup['suspect_reason']}" if backup["accepted_at"] else ""),
            ("protected", f"by {backup['protected_by']}, {backup['protected_at']}" if backup["protected"] else ""),
            ("copies", "; ".join(copy["push"] for copy in backup["copies"] or [])),
            ("manifest", backup["manifest_ref"]),
        ]
    )


def _unchecked(backup: Backup) -> str:
    return "no: files of the store changed since they were last hashed; run volt-backup verify --content" if backup["checked"] is False else ""


def _contents(contents: t.Dict[str, t.Any]) -> str:
    more = f"... and {contents['more']} more (--diff-limit)\n" if contents["more"] else ""
    return "\n" + look.entries(contents["entries"]) + more


# ---- diff


def _diff_options() -> Options:
    return (
        argument("old", metavar="ID|WORKLOAD|latest", help="the older state: a backup's id, or a workload (its newest good backup)"),
        argument("new", nargs="?", metavar="ID|WORKLOAD|DIR", help="the newer state: a backup, or a directory, with a slash in it (default: the source)"),
        PATHS,
        *REMOTE,
        argument("--no-verify", dest="verify", action="store_false", help="with a directory: trust size and time of its files"),
        DIFF_LIMIT,
    )


def _diff(args: Arguments, manager: Manager) -> Outcome:
    if args.remote is not None:
        found = _diff_on_remote(args, manager)
    elif args.new is None or is_path(args.new):
        found = manager.diff_live(args.old, args.new, args.paths, args.verify, args.diff_limit)
    else:
        found = manager.diff(args.old, args.new, args.paths, args.diff_limit)
    return Outcome({**found._asdict(), "changed": False}, lambda: _differences(found))


def _diff_on_remote(args: Arguments, manager: Manager) -> Difference:
    """Two backups of a remote."""
    from .._backup import differ

    if args.new is None:
        raise UsageError("With --remote, two backups of it are compared; give the second one.")
    remote = opened(args, manager)
    with remote.opened(args.old) as old, remote.opened(args.new) as new:
        return differ.between(old, new, args.paths, args.diff_limit)


def is_path(text: str) -> bool:
    """Whether a text is a path, for no id and no workload has a slash."""
    return "/" in text or text in (".", "..")


def _differences(found: Difference) -> str:
    counts = ", ".join(f"{number} {kind}" for kind, number in found.diff["counts"].items())
    text = found.text or (f"{found.text_reason}\n" if found.text_reason else "")
    return f"{found.diff['prepared']}{text}{counts}, from {found.old} to {one_line(found.new)}\n"


# ---- restore


def _restore_options() -> Options:
    from .._restore.plan import ATTRIBUTES, LINKS, STRATEGIES

    return (
        CHOSEN,
        *REMOTE,
        argument("--target", metavar="DIR", help="where to restore (default: the original path)"),
        argument("--force", action="store_true", help="overwrite a target that differs"),
        argument("--strategy", default="auto", choices=STRATEGIES, help="replace the tree as a whole, or change it (default: %(default)s)"),
        argument("--delete", action="store_true", help="in place: remove files that are not in the backup"),
        PATHS,
        argument("--link", default="auto", choices=LINKS, help="how content gets there (default: %(default)s: reflink, else copy)"),
        argument("--verify", action="store_true", default=True, help="hash existing and linked files (the default)"),
        argument("--no-verify", dest="verify", action="store_false", help="trust size and time of existing files, and linked files"),
        argument("--salvage", action="store_true", help="restore the intact files of a damaged backup, and list the others"),
        argument("--attributes", default="best_effort", choices=ATTRIBUTES, help="strict: fail if the target cannot store them all"),
        argument("--allow-in-use", action="store_true", help="restore even if a container runs on the target or has mounts in it"),
        argument("--numeric-owner", action="store_true", help="restore owners by number, not by name"),
        argument("--keep-previous", action="store_true", help="keep the replaced tree beside the target"),
        _DRY_RUN,
        DIFF_LIMIT,
    )


def _restore(args: Arguments, manager: Manager) -> Outcome:
    from .._restore.plan import RestoreRequest

    request = RestoreRequest(**{name: getattr(args, name) for name in RestoreRequest._fields})
    if args.remote is not None:
        remote = opened(args, manager)
        with screen.progress(args.quiet or args.json, lambda: 0) as progress:
            done, passed = remote.restore(remote.meant(args.id), request, dry=args.dry_run, progress=progress)
    else:
        backup, workload = manager.meant(args.id)
        with screen.progress(args.quiet or args.json, lambda: manager.expected(workload, backup)) as progress:
            done, passed = manager.restore(backup, request, Query(workload), dry=args.dry_run, progress=progress)
    value = {"restore": done.restore, "changed": done.changed, "diff": done.diff, "passed_over": passed, "warnings": done.warnings}
    return Outcome(value, lambda: _restored(done, args.dry_run), status=INCOMPLETE if done.restore["lost"] else DONE)


def _restored(done: Restored, dry: bool) -> str:
    from .._backup.restore import unchanged

    result = done.restore
    if not done.changed:
        return f"Nothing to do: {unchanged(result)}.\n"
    counts = ", ".join(f"{number} {kind}" for kind, number in done.diff["counts"].items())
    files = f"{result['files_copied']} copied, {result['files_linked']} linked, {result['files_unchanged']} unchanged"
    return screen.fields(
        [
            ("backup", result["backup_id"]),
            ("remote", f"{result['remote']}, {screen.size(result['fetched_bytes'])} fetched" if result["remote"] else ""),
            ("target", result["target_dir"] + (" (dry run, nothing was written)" if dry else "")),
            ("strategy", result["strategy"]),
            ("changes", counts),
            ("files", "" if dry else files),
            ("previous", result["previous"]),
            ("verified", "" if dry else "yes" if result["verified"] else "no: linked files were not hashed, others were compared by size and time"),
            ("took", screen.span(result["duration"])),
        ]
    ) + _paths(done.diff, dry)


# ---- delete


def _one_options() -> Options:
    """Of commands about one backup."""
    return ID, DRY_RUN


def _delete(args: Arguments, manager: Manager) -> Outcome:
    found = manager.delete(args.id, args.dry_run)
    if found is None:
        raise _unknown(args.id, manager)
    verb = "Would delete" if args.dry_run else "Deleted"
    return Outcome({"backup": found, "changed": True}, lambda: f"{verb} {args.id}.\n")


def _unknown(backup: str, manager: Manager) -> NotFound:
    return NotFound(f"There is no backup {backup} in {manager.where}; list the backups.")


# ---- accept, protect, unprotect


def _accept_options() -> Options:
    return (
        argument("name", metavar="ID|WORKLOAD", help="a suspect backup, or a workload whose mount was removed for good"),
        DRY_RUN,
    )


def _accept(args: Arguments, manager: Manager) -> Outcome:
    backup, workload = manager.meant(args.name) if workload_of(args.name) is None else (args.name, None)
    if backup is not None:
        marked = manager.accept(backup, args.dry_run)
        done = "Would accept" if args.dry_run else "Accepted"
        return _marked(marked, f"{done} {backup}.", f"Nothing to accept: {backup} is not suspect.")
    forgotten = manager.accept_mounts(workload or "", args.dry_run)
    verb = "Would forget" if args.dry_run else "Forgot"
    text = f"{verb} these mounts: {one_line(', '.join(forgotten))}.\n" if forgotten else "Nothing to accept: no mount is missing.\n"
    return Outcome({"changed": bool(forgotten), "mounts": forgotten}, lambda: text)


def _protect(args: Arguments, manager: Manager) -> Outcome:
    marked = manager.protect(args.id, True, args.dry_run)
    return _marked(marked, f"{'Would protect' if args.dry_run else 'Protected'} {args.id}.", f"Nothing to do: {args.id} is protected.")


def _unprotect(args: Arguments, manager: Manager) -> Outcome:
    marked = manager.protect(args.id, False, args.dry_run)
    return _marked(marked, f"{'Would unprotect' if args.dry_run else 'Unprotected'} {args.id}.", f"Nothing to do: {args.id} is not protected.")


def _marked(marked: Marked, done: str, none: str) -> Outcome:
    return Outcome({"backup": marked.backup, "changed": marked.changed}, lambda: f"{done if marked.changed else none}\n")


COMMANDS = (
    Command("create", "back up a directory", _create_options, _create, reads=False),
    Command("list", "list backups, newest first", _list_options, _list),
    Command("show", "show one backup", _show_options, _show, ids=("id",)),
    Command("diff", "show the changes between two backups, or since one", _diff_options, _diff),
    Command("restore", "restore a backup", _restore_options, _restore),
    Command("delete", "delete a backup", _one_options, _delete, ids=("id",)),
    Command("accept", "accept a suspect backup, or a missing mount, as correct", _accept_options, _accept),
    Command("protect", "protect a backup from deletion", _one_options, _protect, ids=("id",)),
    Command("unprotect", "allow a protected backup to be deleted again", _one_options, _unprotect, ids=("id",)),
)
