# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The commands about remotes: push, and remote, which makes remotes and keys. Each is an entry of COMMANDS."""

from __future__ import annotations

import json
import typing as t

from .._backup.manager import Manager
from .._base import UsageError, show_time
from . import screen
from .upkeep import IDENTITY, Arguments, Command, Options, Outcome, argument, count

if t.TYPE_CHECKING:
    from .._backup.records import Sidecar
    from .._remote.push import Pushed
    from .._remote.remote import Remote
    from .._remote.sealed import Recovery


_WHICH = "a declared remote, or a URL such as file:///mnt/nas/backup"
#: Which remote, and what opens it.
REMOTE = (IDENTITY, argument("--remote", metavar="REMOTE", help=_WHICH))
_NEEDED_REMOTE = argument("--remote", required=True, metavar="REMOTE", help=_WHICH)


def opened(args: Arguments, manager: Manager) -> Remote:
    """The remote that the arguments name."""
    from .._remote.declared import resolve
    from .._remote.remote import Remote

    settings = resolve(args.remote)
    given = {name: getattr(args, option, None) for name, option in (("host", "remote_host"), ("jobs", "jobs"), ("keys", "keys"))}
    return Remote(manager, settings._replace(**{name: value for name, value in given.items() if value is not None}), _identity(args))


def _identity(args: Arguments) -> t.Optional[Recovery]:
    from .._remote.sealed import read_recovery

    path = getattr(args, "identity", None)
    return read_recovery(path) if path is not None else None


# ---- push


def _push_options() -> Options:
    return (
        argument("ids", nargs="*", metavar="ID", help="the backup to push"),
        argument("--all", dest="every", action="store_true", help="push all backups that the remote does not have, the oldest first"),
        argument("--jobs", type=count, metavar="N", help="how many packs are sent at once (default: 4)"),
        argument("--dry-run", action="store_true", help="show what would be sent, write nothing"),
        argument("--keys", metavar="FILE", help="the keys of this host, for a sealed remote"),
        argument("--remote-host", metavar="NAME", help="what this host is called there (default: its name and the start of its store's id)"),
        _NEEDED_REMOTE,
    )


def _push(args: Arguments, manager: Manager) -> Outcome:
    from .._remote.remote import Which, told

    if bool(args.ids) == args.every:
        raise UsageError("No backup was chosen; give ids, or --all.")
    remote = opened(args, manager)
    with screen.progress(args.quiet or args.json, lambda: 0) as progress:
        done = remote.push(Which(None if args.every else args.ids), args.dry_run, progress)
    changed = any(pushed is not None for _sidecar, pushed in done)
    where = remote.transport.where
    value = {"changed": changed, "remote": where, "pushed": told(done), "warnings": remote.warnings}
    return Outcome(value, lambda: _told(done, where, args.dry_run))


def _told(done: t.Sequence[t.Tuple[Sidecar, t.Optional[Pushed]]], where: str, dry: bool) -> str:
    if not done:
        return f"Nothing to do: {where} has all backups.\n"
    lines = []
    for sidecar, pushed in done:
        if pushed is None:
            lines.append(f"{sidecar['id']}: {where} has it already\n")
        elif dry:
            lines.append(f"{sidecar['id']}: would send {pushed.new_blobs} blobs, {screen.size(pushed.new_bytes)} before compression\n")
        else:
            lines.append(f"{sidecar['id']}: sent {screen.size(pushed.sent_bytes)} in {pushed.sent_packs} packs, {pushed.new_blobs} new blobs\n")
    return "".join(lines)


# ---- pull


def _pull_options() -> Options:
    return (
        argument("id", metavar="[HOST/]ID|WORKLOAD", help="a backup on the remote, or a workload (its newest good backup)"),
        argument("--dry-run", action="store_true", help="show what would be fetched, write nothing"),
        IDENTITY,
        _NEEDED_REMOTE,
    )


def _pull(args: Arguments, manager: Manager) -> Outcome:
    remote = opened(args, manager)
    with screen.progress(args.quiet or args.json, lambda: 0) as progress:
        done = remote.pull(remote.meant(args.id), args.dry_run, progress)
    value = {"changed": done.changed, "backup": done.sidecar, "new_blobs": done.new_blobs, "new_bytes": done.new_bytes, "remote": remote.transport.where}
    if not done.changed:
        return Outcome(value, lambda: f"Nothing to do: {done.sidecar['id']} is here.\n")
    what = "would fetch" if args.dry_run else "fetched"
    return Outcome(value, lambda: f"{done.sidecar['id']}: {what} {done.new_blobs} blobs, {screen.size(done.new_bytes)} after decompression\n")


# ---- remote


def _remote_options() -> Options:
    about = "init: make a remote in an empty directory or bucket; status: show which hosts use it; policy: print the rights that a host needs on S3; "
    about += "keys: make a recovery key, or from it the keys of a host"
    return (
        argument("action", choices=("init", "status", "policy", "keys"), metavar="ACTION", help=about),
        argument("remote", nargs="?", metavar="REMOTE", help="a declared remote, or a URL such as file:///mnt/nas/backup; not for keys"),
        argument("--remote-host", metavar="NAME", help="for policy: what the host is called there (default: its name and the start of its store's id)"),
        argument("--keys", metavar="FILE", help="for init: the keys of this host; the remote is sealed then"),
        argument("--new", metavar="FILE", help="for keys: write a new recovery key"),
        argument("--from", dest="recovery", metavar="FILE", help="for keys: the recovery key"),
        argument("--host", metavar="NAME", help="for keys: what the host is called on the remote"),
        argument("--out", metavar="FILE", help="for keys: write the keys of the host"),
        argument("--dry-run", action="store_true", help="for init: show what would happen, write nothing"),
    )


def _remote(args: Arguments, manager: Manager) -> Outcome:
    if args.action == "keys":
        return _make_keys(args)
    if args.remote is None:
        raise UsageError("No remote was named; give its URL, or the name of a declared one.")
    remote = opened(args, manager)
    if args.action == "policy":
        return _policy(remote)
    if args.action == "status":
        return _look(remote)
    begun = remote.begin(args.dry_run)
    where = remote.transport.where
    value = {
        "changed": begun.changed,
        "remote": where,
        "id": begun.about.id if begun.about else None,
        "commit": begun.about.commit if begun.about else None,
        "abilities": begun.abilities._asdict() if begun.abilities else None,
    }
    if not begun.changed:
        return Outcome(value, lambda: f"Nothing to do: {where} is a remote.\n")
    return Outcome(value, lambda: f"{'Would make' if args.dry_run else 'Made'} the remote {where}.\n")


def _policy(remote: Remote) -> Outcome:
    policy = remote.policy()
    if policy is None:
        raise UsageError(f"{remote.transport.where} is a directory, and policies are for S3; set the permissions of the directory.")
    return Outcome({"changed": False, "policy": policy}, lambda: json.dumps(policy, indent=2) + "\n")


def _look(remote: Remote) -> Outcome:
    about, pushes = remote.look()
    hosts = [{"host": found.host, "commits": found.commits, "newest_at": show_time(found.newest)} for found in pushes]
    value = {"changed": False, "remote": remote.transport.where, "id": about.id, "commit": about.commit, "sealed": about.sealed, "hosts": hosts}

    def told() -> str:
        kind = f"{'sealed' if about.sealed else 'not sealed'}, {about.commit}"
        rows = [(found["host"], str(found["commits"]), screen.ago(t.cast(str, found["newest_at"]))) for found in hosts]
        table = screen.fitted(("HOST", "COMMITS", "NEWEST"), rows, {1}) if rows else "No host has copies there.\n"
        return f"{remote.transport.where}: {kind}\n{table}"

    return Outcome(value, told)


def _make_keys(args: Arguments) -> Outcome:
    from .._remote import sealed

    if (args.new is None) == (args.recovery is None) or (args.recovery is None) != (args.host is None) or (args.host is None) != (args.out is None):
        raise UsageError("No key to make was chosen; give --new FILE for a recovery key, or --from FILE, --host NAME and --out FILE for those of a host.")
    if args.new is not None:
        sealed.write(args.new, sealed.new_recovery().text())
        text = f"Wrote the recovery key {args.new}. Without it, sealed backups cannot be read: keep copies of it, and none on the hosts.\n"
        return Outcome({"changed": True, "path": args.new}, lambda: text)
    sealed.write(args.out, sealed.read_recovery(args.recovery).of_host(args.host).text())
    return Outcome({"changed": True, "path": args.out}, lambda: f"Wrote the keys of host {args.host} to {args.out}.\n")


COMMANDS = (
    Command("push", "copy backups to a remote", _push_options, _push, ids=("ids",)),
    Command("pull", "bring a backup from a remote into the store", _pull_options, _pull),
    Command("remote", "make a remote, or the keys of one", _remote_options, _remote, reads=False),
)
