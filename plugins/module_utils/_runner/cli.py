# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The command line: which commands there are, how each is called, and what becomes of its outcome."""

from __future__ import annotations

import argparse
import functools
import os
import sys
import typing as t

from .. import _version
from .._backup import host
from .._backup.manager import Manager
from .._base import Incomplete, NoStore, NotFound, Suspect, Unsupported, UsageError, VoltError, interruptible, show, unexpected
from . import backups, scheduled, screen, upkeep

#: Exit status by error; all others are FAILED.
_STATUS = {
    UsageError: upkeep.USAGE,
    Incomplete: upkeep.INCOMPLETE,
    NoStore: upkeep.NO_STORE,
    NotFound: upkeep.UNKNOWN,
    Suspect: upkeep.SUSPECT,
    Unsupported: upkeep.UNSUPPORTED,
}
#: Arguments that hold paths, whose bytes may be any; all other texts are UTF-8.
_PATHS = ("store", "backup_dir", "source", "target", "paths", "exclude")
_CALLED = {"ids": "id", "workload_mode": "mode", "tags": "tag", "keep_tags": "tag", "old": "id", "new": "id"}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--store", metavar="DIR", help=f"the store (default: that of the host's schedules, else {host.STORE})")
    shared.add_argument("--backup-dir", metavar="DIR", help=f"the backups' records (default: those of the host's schedules, else {host.BACKUP_DIR})")
    shared.add_argument("--lock-timeout", default=300, type=upkeep.count, metavar="SECONDS", help="how long to wait for a lock (default: %(default)s)")
    shared.add_argument("--json", action="store_true", help="print the result as JSON")
    shared.add_argument("--quiet", action="store_true", help="print errors only")

    top = argparse.ArgumentParser(prog="volt-backup", description="Back up directory trees into a content-addressed store, and restore them.")
    top.add_argument("--version", action="version", version=f"%(prog)s {_version.VERSION}")
    words = top.add_subparsers(dest="word", required=True, metavar="COMMAND")
    for command in (*backups.COMMANDS, *upkeep.COMMANDS, *scheduled.COMMANDS):
        made = words.add_parser(command.name, help=command.about, description=command.about, parents=[shared])
        command.options(made)
        flags = {action.dest: action for action in made._actions if action.option_strings}
        made.set_defaults(call=functools.partial(_call, command), flags=flags)
    return top


def _call(command: upkeep.Command, args: upkeep.Arguments) -> int:
    """Run a command and tell what came of it; the exit status."""
    manager = Manager(args.store, args.backup_dir, args.lock_timeout)
    if command.reads:
        upkeep.expect(manager)
    for name in command.ids:
        given = getattr(args, name)
        setattr(args, name, [manager.id_of(text) for text in given] if isinstance(given, list) else manager.id_of(given))
    outcome = command.work(args, manager)
    if not args.json:
        for warning in outcome.value.get("warnings", ()):
            screen.complain(screen.speak(warning, args))
    if args.json and outcome.failure is None:
        screen.as_json(outcome.value)
    elif not args.json and not args.quiet:
        screen.out(outcome.text())
    if outcome.failure is not None:
        raise outcome.failure
    return outcome.status


def _check_texts(args: upkeep.Arguments) -> None:
    """UsageError for a text that is not UTF-8: it would be kept for ever and could be shown nowhere."""
    for name, value in vars(args).items():
        for text in value if isinstance(value, list) else [value]:
            if name not in _PATHS and isinstance(text, str) and not text.isascii():
                try:
                    text.encode()
                except UnicodeEncodeError:
                    raise UsageError(f"The {_CALLED.get(name, name)} {show(text)} is not valid UTF-8; write it in UTF-8.") from None


def _failed(args: upkeep.Arguments, message: str, code: str, **details: t.Any) -> None:
    message = screen.speak(message, args)
    if args.json:
        screen.as_json({"failed": True, "msg": message, "code": code, **details})
    screen.complain(message)


def main(words: t.Optional[t.Sequence[str]] = None) -> int:
    """Run one command; its exit status."""
    args = upkeep.Arguments(json=False)
    try:
        with interruptible():  # from the first moment: a signal must not end in a traceback
            args = parser().parse_args(words)
            _check_texts(args)
            return t.cast(int, args.call(args))
    except VoltError as error:
        _failed(args, error.message, error.code, **error.details)
        return next((status for kind, status in _STATUS.items() if isinstance(error, kind)), upkeep.FAILED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return upkeep.FAILED
    except OSError as error:
        _failed(args, unexpected(error, show(error.filename) if isinstance(error.filename, (str, bytes)) else "").message, VoltError.code)
        return upkeep.FAILED
