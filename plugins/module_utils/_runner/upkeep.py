# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.
"""What a command of volt-backup is, and those that keep a store in order: init, prune, gc, verify, adopt, import-volt. Each is an entry of COMMANDS.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import typing as t

from .._backup.ids import TYPES
from .._backup.manager import Manager
from .._base import UsageError, VoltError
from . import screen

if t.TYPE_CHECKING:
    from .._backup import adopt, import_original, presence, prune, verify

#: Exit status of the command.
DONE, FAILED, USAGE, INCOMPLETE, NO_STORE, UNKNOWN, SUSPECT, UNSUPPORTED = range(8)
INTERRUPTED = 130

Arguments = argparse.Namespace
#: An option or an operand: what ArgumentParser.add_argument takes.
Option = t.Tuple[t.Tuple[str, ...], t.Dict[str, t.Any]]
Options = t.Sequence[Option]


class Outcome(t.NamedTuple):
    """What a word did: the result for programs, the same for people, what makes it a failure, and the exit status where nothing does."""

    value: t.Dict[str, t.Any]
    text: t.Callable[[], str]
    failure: t.Optional[VoltError] = None
    status: int = DONE


class Command(t.NamedTuple):
    """A subcommand."""

    name: str
    about: str
    #: Called for the command that is meant: some need parts of the engine, which take time to import.
    options: t.Callable[[], Options]
    work: t.Callable[[Arguments, Manager], Outcome]
    #: Whether it is about what a store holds, and there is nothing to do without one.
    reads: bool = True
    #: Which of its arguments are ids of backups, of which a beginning is enough.
    ids: t.Sequence[str] = ()


def expect(manager: Manager, workload: t.Optional[str] = None) -> None:
    """Raise what is lacking where something is asked of a store, or of a workload, that is not there."""
    lack = manager.lack(workload, _is_declared)
    if lack is not None:
        raise lack


def _is_declared(workload: str) -> bool:
    from .._schedule import job

    return job.is_declared(workload)


def words(text: str) -> t.List[str]:
    """An argument that is a command, quoted as in a shell."""
    try:
        return shlex.split(text) or [""]
    except ValueError:
        raise argparse.ArgumentTypeError("has a quote without its end") from None


def count(text: str) -> int:
    """An argument that is a number from 0 up."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return number


def argument(*names: str, **about: t.Any) -> Option:
    return names, about


#: What several commands have.
ID = argument("id", metavar="ID", help="a backup's id, or the start of one")
CHOSEN = argument("id", metavar="ID|WORKLOAD|latest", help="a backup's id, a workload (its newest good backup), or latest, with one workload only")
PATHS = argument("--path", dest="paths", action="append", default=[], metavar="P", help="only this path and below, with or without the source in front")
SINCE = argument("--since", metavar="TIME", help="started at or after this time, such as 2026-11-23 or 2026-11-23T10:00:00 (UTC)")
UNTIL = argument("--until", metavar="TIME", help="started at or before this time")
IDENTITY = argument("--identity", metavar="FILE", help="the recovery key, to read a sealed remote")
DIFF_LIMIT = argument("--diff-limit", default=1000, type=count, metavar="N", help="how many paths to list (default: %(default)s)")
DRY_RUN = argument("--dry-run", action="store_true", help="show what would happen, write nothing")


# ---- init


def _init_options() -> Options:
    return (
        argument("--replace", action="store_true", help="start with an empty store if the known one is lost; its backups stay listed as damaged"),
        DRY_RUN,
    )


def _init(args: Arguments, manager: Manager) -> Outcome:
    begun = manager.begin(args.replace, args.dry_run)
    diff = {"prepared": "".join(f"{step}\n" for step in begun.steps)}
    value = {"changed": bool(begun.steps), "store": begun.store, "backup_dir": begun.backup_dir, "store_id": begun.store_id, "diff": diff}
    return Outcome(value, lambda: _begun(begun, args.dry_run))


def _begun(begun: presence.Begun, dry: bool) -> str:
    if not begun.steps:
        return f"Nothing to do: the store {begun.store} exists.\n"
    return f"{'Would do' if dry else 'Done'}:\n" + "".join(f"  {step}\n" for step in begun.steps)


# ---- prune


def _prune_options() -> Options:
    from .._backup.retention import COUNTS

    spans = {"hourly": "hours", "daily": "days", "weekly": "weeks", "monthly": "months", "yearly": "years"}
    return (
        argument("workload", metavar="WORKLOAD", help="the workload whose backups are deleted"),
        argument("--keep", dest="last", type=int, metavar="N", help="keep the newest N"),
        *(argument(f"--keep-{name}", dest=name, type=int, metavar="N", help=f"keep the newest of each of the newest N {spans[name]}") for name in COUNTS[1:]),
        argument("--keep-within", dest="within", metavar="SPAN", help="keep backups younger than this, such as 30d"),
        argument("--keep-tag", dest="keep_tags", action="append", default=[], metavar="TAG", help="keep backups with this tag (repeatable)"),
        argument("--type", dest="types", action="append", default=[], choices=TYPES, help="delete only backups of this type (repeatable; default: all)"),
        DRY_RUN,
    )


def _prune(args: Arguments, manager: Manager) -> Outcome:
    from .._backup.retention import COUNTS

    keep = {**{name: getattr(args, name) for name in COUNTS}, "within": args.within, "tags": args.keep_tags}
    expect(manager, args.workload)
    done = manager.prune(args.workload, keep, args.types, args.dry_run)
    value = {"changed": done.changed, "kept": done.kept, "removed": done.removed, "diff": done.diff}
    return Outcome(value, lambda: _pruned(done, args.dry_run))


def _pruned(done: prune.Pruned, dry: bool) -> str:
    from .._backup import prune

    rows = [(row["id"], word, row["rule"], prune.state(row)) for word, part in (("keep", done.kept), ("remove", done.removed)) for row in part]
    if not rows:
        return "No backups.\n"
    verb = "Would remove" if dry else "Removed"
    return screen.fitted(("ID", "", "WHY", "STATE"), rows) + f"{verb} {len(done.removed)} of {len(rows)}.\n"


# ---- gc


def _collect_options() -> Options:
    return (
        argument("--grace", default="24h", metavar="SPAN", help="how long files stay in the trash (default: %(default)s)"),
        argument("--no-repack", dest="repack", action="store_false", help="do not rewrite mostly unused packs"),
        DRY_RUN,
    )


def _collect(args: Arguments, manager: Manager) -> Outcome:
    done = manager.collect(args.grace, args.repack, args.dry_run)
    return Outcome(done, lambda: _collected(done, args.dry_run))


def _collected(done: t.Dict[str, t.Any], dry: bool) -> str:
    if not done["changed"]:
        return "Nothing to collect.\n"
    rows = [
        ("to the trash", f"{done['trashed_files']} files, {screen.size(done['trashed_bytes'])}"),
        ("rewritten", f"{done['repacked_packs']} packs, as {screen.size(done['written_bytes'])}" if done["repacked_packs"] else ""),
        ("deleted", f"{done['freed_files']} files, {screen.size(done['freed_bytes'])}"),
        ("in use", f"{done['live_blobs']} blobs"),
    ]
    return screen.fields(rows) + ("(dry run, nothing was written)\n" if dry else "")


# ---- verify


def _verify_options() -> Options:
    about = "check the copies of this host on this remote instead of the store; with --repair, fetch lost content from them"
    return (
        argument("--content", dest="level", action="store_const", const="content", default="structure", help="also read and hash all content"),
        argument("--budget", metavar="SHARE", help="with --content, read only this much, such as 5%% or 30m, and continue there next time"),
        argument("--id", dest="ids", action="append", default=[], metavar="ID", help="check only this backup (repeatable)"),
        argument("--repair", action="store_true", help="repair what can be repaired"),
        argument("--vet", action="store_true", help="read the packs that all hosts have on --remote, and note for hosts that share which are undamaged"),
        argument("--remote", metavar="REMOTE", help=about),
        argument("--host", metavar="NAME", help="with --remote, whose copies are checked (default: those of this host)"),
        argument("--identity", metavar="FILE", help="the recovery key, if the remote is sealed"),
        DIFF_LIMIT,
        DRY_RUN,
    )


def _verify(args: Arguments, manager: Manager) -> Outcome:
    from .._backup import verify

    request = verify.VerifyRequest(**{name: getattr(args, name) for name in verify.VerifyRequest._fields})
    if args.host is not None and (args.remote is None or request.repair):
        raise UsageError("--host is for checking copies on a remote; add --remote without --repair, or omit --host.")
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(screen.progress(args.quiet or args.json, lambda: 0))
        elsewhere = None
        if args.remote is not None:
            from .remotes import opened

            if not request.repair:
                found = opened(args, manager).verify(request, args.host, args.dry_run)
                return Outcome(found.result(), lambda: _verified(found, args.dry_run), found.failure())
            elsewhere = stack.enter_context(opened(args, manager).giving())
        found = manager.verify(request, args.dry_run, progress, elsewhere)
    return Outcome(found.result(), lambda: _verified(found, args.dry_run), found.failure())


def _fetched(done: t.Mapping[str, t.Any]) -> str:
    return f", {done['fetched']} of them from the remote" if done["fetched"] else ""


def _verified(found: verify.Verified, dry: bool) -> str:
    rows = [
        ("host", found.host or ""),
        ("backups", "" if found.vetted is not None else f"{found.backup_count}, {len(found.damaged)} damaged" if found.damaged else f"{found.backup_count}"),
        ("vetted", "" if found.vetted is None else f"{found.vetted['packs']} packs, {found.vetted['before']} before"),
        ("unsupported", f"{len(found.unsupported)}, written by a newer version" if found.unsupported else ""),
        ("foreign", f"{len(found.foreign)}, of another backup directory, not checked" if found.foreign else ""),
        ("content", f"{found.file_count} files, {screen.size(found.byte_count)}" if found.file_count else ""),
        ("unreferenced", f"{found.unreferenced_count} objects on the remote, which no backup needs" if found.unreferenced_count else ""),
        ("round", "" if found.covered is None else f"{found.covered}%"),
    ]
    done = found.repaired
    if done is not None and found.changed:
        rows += [
            ("quarantine", f"{len(done['quarantined'])} files" if done["quarantined"] else ""),
            ("stored again", f"{done['blobs']} blobs{_fetched(done)}" if done["blobs"] else ""),
            ("read from", ", ".join(done["sources"])),
            ("recreated", f"{len(done['sidecars'])} sidecars" if done["sidecars"] else ""),
        ]
    text = screen.fields(rows) + ("(dry run, nothing was written)\n" if dry and (done is not None or found.vetted is not None) else "")
    if found.damage:
        told = [(item["id"] or "", item["path"] or item["file"] or "", item["reason"]) for item in found.damage]
        text += "\n" + screen.fitted(("BACKUP", "PATH OR FILE", "DAMAGE"), told)
        more = found.damage_count - len(found.damage)
        text += f"... and {more} more\n" if more else ""
    return text


# ---- adopt


def _adopt_options() -> Options:
    return (
        argument("ids", nargs="*", metavar="ID", help="adopt only these backups (default: all)"),
        argument("--unlisted", action="store_true", help="also adopt backups that have a manifest in the store, but no record"),
        argument("--dry-run", action="store_true", help="show what would be adopted, write nothing"),
    )


def _adopt(args: Arguments, manager: Manager) -> Outcome:
    done = manager.adopt(args.ids, args.unlisted, args.dry_run)
    return Outcome(done._asdict(), lambda: _adopted(done, args.dry_run))


def _adopted(done: adopt.Adopted, dry: bool) -> str:
    rows = [
        (row["id"], screen.ago(row["created_at"]), row["found"], row["directory_id"] or "", row["reason"] or "")
        for row in (*done.adopted, *done.left)
    ]
    if not rows:
        return "Nothing to adopt.\n"
    verb = "Would adopt" if dry else "Adopted"
    return screen.fitted(("ID", "AGE", "FOUND", "DIRECTORY", "SKIPPED BECAUSE"), rows) + f"{verb} {len(done.adopted)} of {len(rows)}.\n"


# ---- import-volt


def _import_options() -> Options:
    return (
        argument("ids", nargs="*", metavar="ID", help="import only these backups (default: all)"),
        argument("--dry-run", action="store_true", help="check all and show what would be imported, write nothing"),
    )


def _import(args: Arguments, manager: Manager) -> Outcome:
    from .._backup import import_original

    done = manager.import_original(args.ids, args.dry_run)
    value = {**done._asdict(), "warnings": [f"For imported backups, {import_original.LACKS}."] if done.imported else []}
    failed = bool(args.ids and len(done.imported) + sum(row["new_id"] is not None for row in done.left) < len(args.ids))
    return Outcome(value, lambda: _imported(done, args.dry_run), status=FAILED if failed else DONE)


def _imported(done: import_original.Imported, dry: bool) -> str:
    rows = [(row["id"], row["new_id"] or "-", row["reason"] or "") for row in (*done.imported, *done.left)]
    if not rows:
        return "There are no backups of the original Volt command.\n"
    verb = "Would import" if dry else "Imported"
    return screen.fitted(("ORIGINAL", "NEW ID", "SKIPPED BECAUSE"), rows) + f"{verb} {len(done.imported)} of {len(rows)}.\n"


COMMANDS = (
    Command("init", "create the store", _init_options, _init, reads=False),
    Command("prune", "delete the backups of a workload that no rule keeps", _prune_options, _prune),
    Command("gc", "remove data that no backup needs", _collect_options, _collect),
    Command("verify", "check that all data of the backups is present and undamaged", _verify_options, _verify, ids=("ids",)),
    Command("adopt", "adopt backups of another or a lost backup directory", _adopt_options, _adopt, ids=("ids",)),
    Command("import-volt", "import backups of the original Volt command", _import_options, _import),
)
