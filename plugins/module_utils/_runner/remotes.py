# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The commands about remotes: push, and `remote init`. Each is an entry of COMMANDS."""

from __future__ import annotations

import argparse
import typing as t

from .._backup.manager import Manager
from .._base import UsageError
from . import screen
from .upkeep import Arguments, Command, Outcome, count

if t.TYPE_CHECKING:
    from .._backup.records import Sidecar
    from .._remote.push import Pushed
    from .._remote.remote import Remote


def remote_option(made: argparse.ArgumentParser, needed: bool = False) -> None:
    """Which remote."""
    made.add_argument("--remote", required=needed, metavar="REMOTE", help="a declared remote, or a URL such as file:///mnt/nas/backup")


def opened(args: Arguments, manager: Manager) -> Remote:
    """The remote that the arguments name."""
    from .._remote.declared import resolve
    from .._remote.remote import Remote

    settings = resolve(args.remote)
    given = {"host": getattr(args, "remote_host", None), "jobs": getattr(args, "jobs", None)}
    return Remote(manager, settings._replace(**{name: value for name, value in given.items() if value is not None}))


# ---- push


def _push_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("ids", nargs="*", metavar="ID", help="the backup to push")
    made.add_argument("--all", dest="every", action="store_true", help="push all backups that the remote does not have, the oldest first")
    made.add_argument("--jobs", type=count, metavar="N", help="how many packs are sent at once (default: 4)")
    made.add_argument("--dry-run", action="store_true", help="show what would be sent, write nothing")
    made.add_argument("--remote-host", metavar="NAME", help="what this host is called there (default: its name and the start of its store's id)")
    remote_option(made, needed=True)


def _push(args: Arguments, manager: Manager) -> Outcome:
    from .._remote.remote import Which, told

    if bool(args.ids) == args.every:
        raise UsageError("Which backups to push was not said; give ids, or --all.")
    remote = opened(args, manager)
    with screen.progress(args.quiet or args.json, lambda: 0) as progress:
        done = remote.push(Which(None if args.every else args.ids), args.dry_run, progress)
    changed = any(pushed is not None for _sidecar, pushed in done)
    value = {"changed": changed, "remote": remote.transport.where, "pushed": told(done)}
    return Outcome(value, lambda: _told(done, remote.transport.where, args.dry_run))


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


# ---- remote


def _remote_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("action", choices=("init",), metavar="ACTION", help="init: make a remote in an empty directory or bucket")
    made.add_argument("remote", metavar="REMOTE", help="a declared remote, or a URL such as file:///mnt/nas/backup")
    made.add_argument("--dry-run", action="store_true", help="show what would happen, write nothing")


def _remote(args: Arguments, manager: Manager) -> Outcome:
    remote = opened(args, manager)
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


COMMANDS = (
    Command("push", "copy backups to a remote", _push_options, _push, ids=("ids",)),
    Command("remote", "make a remote", _remote_options, _remote, reads=False),
)
