# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The command line: which commands there are, how each is called, and what becomes of its outcome."""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import sys
import typing as t

from .. import _version
from .._backup import host
from .._backup.manager import Manager
from .._base import (
    Incomplete,
    Interrupted,
    NoStore,
    NotFound,
    Stalled,
    Suspect,
    TimedOut,
    Unsupported,
    UsageError,
    VoltError,
    interruptible,
    show,
    unexpected,
)
from . import backups, look, manual, remotes, scheduled, screen, upkeep
from .upkeep import Command

#: Exit status by error, the first that fits; all others are FAILED.
_STATUS = {
    Stalled: upkeep.FAILED,
    TimedOut: upkeep.FAILED,
    Interrupted: upkeep.INTERRUPTED,
    UsageError: upkeep.USAGE,
    Incomplete: upkeep.INCOMPLETE,
    NoStore: upkeep.NO_STORE,
    NotFound: upkeep.UNKNOWN,
    Suspect: upkeep.SUSPECT,
    Unsupported: upkeep.UNSUPPORTED,
}
#: Arguments that hold paths, whose bytes may be any; all other texts are UTF-8.
_PATHS = ("store", "backup_dir", "source", "target", "path", "paths", "output", "pattern", "exclude")
#: What needs the options of all commands.
_ALL = ("help", "completion")
_CALLED = {"ids": "id", "workload_mode": "mode", "tags": "tag", "keep_tags": "tag", "old": "id", "new": "id"}


class _Formatter(argparse.HelpFormatter):
    """What follows the options is laid out as it is; all else is wrapped."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith(manual.FIRST) else super()._fill_text(text, width, indent)


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: t.Any) -> None:
        super().__init__(**options)
        self.color = False  # Python 3.14 has colours in its help

    def error(self, message: str) -> t.NoReturn:
        """Wrong usage is told as any other failure, in one line and with `--json` as JSON."""
        raise UsageError(f"{message[:1].upper()}{message[1:]}; see {self.prog} --help.")

    def _print_message(self, message: str, file: t.Any = None) -> None:
        if file is sys.stdout:
            screen.out(message)
        else:
            super()._print_message(message, file)


class _Word(_Parser):
    """One command, whose options may stand between its operands. argparse ends a list of operands at the first option."""

    def parse_known_args(self, args: t.Any = None, namespace: t.Any = None) -> t.Any:
        return super().parse_known_args(self._options_first(args), namespace)

    def _options_first(self, args: t.Sequence[str]) -> t.List[str]:
        options: t.List[str] = []
        operands: t.List[str] = []
        todo = list(reversed(args))
        while todo and todo[-1] != "--":
            word = todo.pop()
            if not word.startswith("-"):
                operands.append(word)
                continue
            meant = self._option_string_actions
            actions = [meant[word]] if word in meant else [action for flag, action in meant.items() if flag.startswith(word)]
            if not any(action.nargs != 0 for action in actions):
                options.append(word)
            elif todo and todo[-1] != "--":
                options += [word, todo.pop()]
            else:
                operands.append(word)  # without a value, and it must not get an operand for one
        return [*options, *operands, *reversed(todo)]


def parser(said: t.Optional[t.Collection[str]] = None) -> argparse.ArgumentParser:
    """The command line.

    :param said: the arguments. If they begin with a command, only that one is made, which takes a tenth of the time. Else only commands that are among
        them get their options, because these import what they are about. By default, all commands are made, with all options.
    """
    top = _Parser(
        prog=manual.NAME, description=f"{manual.SHORT.capitalize()}.", epilog=manual.epilog(),
        formatter_class=_Formatter, parents=[_shared({"store": None, "backup_dir": None, "lock_timeout": 300})],
    )  # fmt: skip
    top.set_defaults(json=False, quiet=False)
    top.add_argument("--version", action="version", version=f"%(prog)s {_version.VERSION}", help="print the version")
    words = top.add_subparsers(dest="word", required=True, parser_class=_Word, metavar="COMMAND", title="commands")
    ours = (
        Command("help", "print the help of a command", _help_options, lambda args, _manager: _help(top, words, args), reads=False),
        Command("completion", "print a script that completes commands, options and ids", _completion_options,
                lambda args, _manager: _completion(top, args), reads=False),
    )  # fmt: skip
    every = (*backups.COMMANDS, *look.COMMANDS, *upkeep.COMMANDS, *remotes.COMMANDS, *scheduled.COMMANDS, *ours)
    for command in [command for command in every if said and command.name == said[0]] or every:
        made = words.add_parser(
            command.name, help=command.about, description=command.about, parents=[_shared({})], epilog=manual.epilog(command.name),
            formatter_class=_Formatter,
        )  # fmt: skip
        for names, about in command.options() if said is None or command.name in said else ():
            made.add_argument(*names, **about)
        flags = {action.dest: action for action in made._actions if action.option_strings}
        made.set_defaults(call=functools.partial(_call, command), flags=flags)
    return top


def _shared(defaults: t.Dict[str, t.Any]) -> argparse.ArgumentParser:
    """Options that every command has, before its name and after it. Those after it have no defaults: these would override values given before it."""
    shared = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    shared.add_argument("--store", metavar="DIR", help=f"the store (default: that of the host's schedules, else {host.STORE})")
    shared.add_argument("--backup-dir", metavar="DIR", help=f"the backups' records (default: those of the host's schedules, else {host.BACKUP_DIR})")
    shared.add_argument("--lock-timeout", type=upkeep.count, metavar="SECONDS", help="how long to wait for a lock (default: 300)")
    shared.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print the result as JSON")
    shared.add_argument("--quiet", action="store_true", default=argparse.SUPPRESS, help="print nothing but errors")
    shared.set_defaults(**defaults)
    return shared


def _help_options() -> upkeep.Options:
    return (
        upkeep.argument("topic", nargs="?", metavar="COMMAND", help="the command to explain (default: all)"),
        upkeep.argument("--man", action="store_true", help="print the manual page, for man -l"),
    )


def _help(top: argparse.ArgumentParser, words: t.Any, args: upkeep.Arguments) -> upkeep.Outcome:
    if args.man:
        from . import page

        troff = page.render(top)
        return upkeep.Outcome({"changed": False, "help": troff}, lambda: troff)
    topic = args.topic
    if topic is not None and topic not in words.choices:
        raise UsageError(f"Command {topic} is unknown; use one of {', '.join(words.choices)}.")
    text = (top if topic is None else words.choices[topic]).format_help()
    return upkeep.Outcome({"changed": False, "help": text}, lambda: text)


def _completion_options() -> upkeep.Options:
    from . import completion

    about = f"with {completion.WORDS} for a shell: what was typed so far; called by the scripts"
    return (
        upkeep.argument("shell", metavar="SHELL", choices=(*completion.SHELLS, completion.WORDS), help=f"one of {', '.join(completion.SHELLS)}"),
        upkeep.argument("typed", metavar="TYPED", nargs=argparse.REMAINDER, help=about),  # which leaves each -- where it is
    )


def _completion(top: argparse.ArgumentParser, args: upkeep.Arguments) -> upkeep.Outcome:
    from . import completion

    if args.shell == completion.WORDS:
        found = completion.answer(top, args.typed)
        return upkeep.Outcome({"changed": False, "words": found}, lambda: "".join(f"{line}\n" for line in found))
    if args.typed:
        raise UsageError(f"A script of {args.shell} takes no words; give the shell alone.")
    text = completion.script(args.shell)
    return upkeep.Outcome({"changed": False, "completion": text}, lambda: text)


def _call(command: upkeep.Command, args: upkeep.Arguments) -> int:
    """Run a command and print its result; returns the exit status."""
    manager = Manager(args.store, args.backup_dir, args.lock_timeout)
    local = getattr(args, "remote", None) is None or command.name == "push" or command.name == "verify" and args.repair
    if command.reads and local:
        upkeep.expect(manager)
    for name in command.ids if local else ():
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
    """Texts as UTF-8, whatever the locale is; UsageError for one that is not: it would be kept for ever and could be shown nowhere."""
    for name, value in vars(args).items():
        if name not in _PATHS:
            setattr(args, name, [_utf8(name, text) for text in value] if isinstance(value, list) else _utf8(name, value))


def _utf8(name: str, value: t.Any) -> t.Any:
    """The value of an argument. Its bytes count where the locale could not read them."""
    if not isinstance(value, str) or value.isascii() or name == "new" and backups.is_path(value):
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        try:
            return os.fsencode(value).decode()
        except UnicodeDecodeError:
            raise UsageError(f"The {_CALLED.get(name, name)} {show(value)} is not valid UTF-8; write it in UTF-8.") from None
    return value


def _failed(args: upkeep.Arguments, message: str, code: str, **details: t.Any) -> None:
    message = screen.speak(message, args)
    if args.json:
        screen.as_json({"failed": True, "msg": message, "code": code, **details})
    screen.complain(message)


def _asks_for_json(said: t.Sequence[str]) -> bool:
    """Whether `--json`, or a beginning of it, is among arguments that cannot be parsed yet."""
    options = itertools.takewhile("--".__ne__, said)
    return any(len(word) > 2 and "--json".startswith(word) for word in options)


def main(words: t.Optional[t.Sequence[str]] = None) -> int:
    """Run one command; its exit status."""
    said = sys.argv[1:] if words is None else words
    args = upkeep.Arguments(json=_asks_for_json(said))
    screen.settle()
    try:
        with interruptible():  # from the first moment: a signal must not end in a traceback
            args = parser(None if any(name in said for name in _ALL) else said).parse_args(words)
            _check_texts(args)
            return t.cast(int, args.call(args))
    except VoltError as error:
        _failed(args, error.message, error.code, **error.details)
        return next((status for kind, status in _STATUS.items() if isinstance(error, kind)), upkeep.FAILED)
    except OSError as error:
        _failed(args, unexpected(error, show(error.filename) if isinstance(error.filename, (str, bytes)) else "").message, VoltError.code)
        return upkeep.FAILED
