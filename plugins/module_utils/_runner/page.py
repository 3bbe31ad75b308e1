# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The manual page volt-backup(8), made of the command line itself and of `manual`. It is the same on every host, whichever Python makes it.

Source: man(7), groff_man(7).
"""

from __future__ import annotations

import argparse
import typing as t

from .. import _version
from .._backup import host
from .._schedule import job, public
from . import manual

#: Paths and what they are.
FILES = {
    host.STORE: "The store, if no option and no schedule names another.",
    host.BACKUP_DIR: "The records of the backups, one file each.",
    job.DIRECTORY: "The schedules of the host, written by the module volt_backup_schedule.",
    public.PATH: "The state of the schedules, for members of the group volt.",
}


def render(top: argparse.ArgumentParser) -> str:
    """The page, as troff. :param top: the command line."""
    (words,) = (action for action in top._actions if isinstance(action, argparse._SubParsersAction))
    shared = [action for action in top._actions if action.option_strings]
    known = {flag for action in shared for flag in action.option_strings}
    lines = [
        f'.TH VOLT\\-BACKUP 8 "" "volt.backup {_version.VERSION}" "System administration"', ".ad l", ".nh", '.\\" ' + manual.WRITTEN,
        ".SH NAME", f"volt\\-backup \\- {_text(manual.SHORT)}",
        ".SH SYNOPSIS", ".B volt\\-backup", "[\\fIoptions\\fR] \\fICOMMAND\\fR ...",
        ".SH DESCRIPTION", *_paragraphs(manual.DESCRIPTION),
        ".SH OPTIONS", "These stand before the command or after it.", *_described(shared),
        ".SH COMMANDS",
    ]  # fmt: skip
    for choice in words._choices_actions:
        lines += _command(choice.dest, choice.help or "", words.choices[choice.dest], known)
    lines.append(".SH EXIT STATUS")
    for number, meaning in manual.STATUSES.items():
        lines += [".TP", f".B {number}", _text(meaning)]
    lines.append(".SH FILES")
    for path, meaning in FILES.items():
        lines += [".TP", f".I {_text(path)}", _text(meaning)]
    lines.append(".SH ENVIRONMENT")
    for name, meaning in manual.ENVIRONMENT.items():
        lines += [".TP", f".B {_text(name)}", _text(meaning)]
    lines += [".SH EXAMPLES", *_examples(""), ".SH SEE ALSO", ".BR systemd.timer (5),", ".BR systemd.time (7)"]
    return "".join(f"{line}\n" for line in lines)


def _command(name: str, about: str, made: argparse.ArgumentParser, shared: t.Container[str]) -> t.List[str]:
    """One command: how it is called, what it is for, its arguments, and examples."""
    own = [action for action in made._actions if not any(flag in shared for flag in action.option_strings)]
    operands = [action for action in own if not action.option_strings]
    options = [action for action in own if action.option_strings]
    needed = [f"\\fB{_text(action.option_strings[-1])}\\fR \\fI{_value(action)}\\fR" for action in options if action.required]
    called = " ".join([f"\\fB{_text(name)}\\fR", *(_operand(action) for action in operands), *needed, *(["[\\fIoptions\\fR]"] if options else [])])
    return [f".SS {called}", f"{_sentence(about)}", *_described([*operands, *options]), ".PP", "Examples:", *_examples(name)]


def _operand(action: argparse.Action) -> str:
    """An argument without a flag, as in a synopsis."""
    name = f"\\fI{_value(action)}\\fR"
    return {"?": f"[{name}]", "*": f"[{name} ...]", argparse.REMAINDER: f"[{name} ...]"}.get(str(action.nargs), name)


def _described(actions: t.Iterable[argparse.Action]) -> t.List[str]:
    lines = []
    for action in actions:
        value = "" if action.nargs == 0 else f"\\fI{_value(action)}\\fR"
        flags = ", ".join(f"\\fB{_text(flag)}\\fR" for flag in action.option_strings)
        lines += [".TP", " ".join(filter(None, [flags, value])), _sentence(manual.meaning(action))]
    return lines


def _value(action: argparse.Action) -> str:
    """What stands for a value."""
    return _text(str(action.metavar or "|".join(map(str, action.choices or ())) or action.dest))


def _examples(name: str) -> t.List[str]:
    return [".PP", ".RS 4", ".nf", *(_text(f"{manual.NAME} {example}") for example in manual.EXAMPLES[name]), ".fi", ".RE"]


def _paragraphs(text: str) -> t.List[str]:
    return [line for paragraph in text.split("\n") for line in (".PP", _text(paragraph))][1:]


def _sentence(text: str) -> str:
    """A help text, which has neither capital nor full stop."""
    return _text(text[:1].upper() + text[1:] + ("" if text.endswith(".") else "."))


def _text(text: str) -> str:
    """A line of text, in which troff sees nothing of its own."""
    plain = text.replace("\\", "\\e").replace("-", "\\-").replace("~", "\\(ti").replace("'", "\\(aq").replace("`", "\\(ga").replace("^", "\\(ha")
    return f"\\&{plain}" if plain.startswith(".") else plain
