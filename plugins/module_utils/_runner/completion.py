# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Completion for bash, zsh and fish.

The scripts know no word of the command. At each key they call `volt-backup completion words -- WORD...` with what was typed so far, of which the last
word is to be completed. It prints a candidate a line, with a tab and what it is for; or DIRECTORIES or FILES for what a shell does itself.

Source: bash(1) Programmable Completion, zshcompsys(1), fish complete(1).
"""

from __future__ import annotations

import argparse
import typing as t

from .._backup.manager import Manager
from .._backup.names import LATEST
from .._base import VoltError, one_line, tolerated
from . import manual

SHELLS = ("bash", "zsh", "fish")
#: Said instead of a shell by the scripts.
WORDS = "words"
DIRECTORIES, FILES = ":directories", ":files"

_BASH = """\
_volt_backup() {
    local name candidates=()
    COMPREPLY=()
    compopt -o nosort 2>/dev/null
    while IFS=$'\\t' read -r name _; do
        case $name in
            :directories) compopt -o filenames; mapfile -t candidates < <(compgen -d -- "$2") ;;
            :files) compopt -o filenames; mapfile -t candidates < <(compgen -f -- "$2") ;;
            *) candidates=("$name"); [[ $name != */ ]] || compopt -o nospace ;;
        esac
        COMPREPLY+=("${candidates[@]}")
    done < <("${1/#\\~\\//$HOME/}" completion words -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -F _volt_backup volt-backup
"""
_ZSH = """\
_volt_backup() {
    local line
    local -a described
    for line in ${(f)"$(${~words[1]} completion words -- "${(@Q)words[2,CURRENT]}" 2>/dev/null)}"}; do
        case $line in
            :directories) _files -/ ;;
            :files) _files ;;
            *) described+=("${${line%%$'\\t'*}//:/\\\\:}:${line#*$'\\t'}") ;;
        esac
    done
    (( $#described )) && _describe -V volt-backup described
}
if [[ $funcstack[1] == _volt-backup ]]; then
    _volt_backup "$@"
else
    compdef _volt_backup volt-backup
fi
"""
_FISH = """\
function __volt_backup_words
    set -l words (commandline -opc)
    set words[1] (string replace -r '^~/' "$HOME/" -- $words[1])
    for line in (command $words[1] completion words -- $words[2..-1] (commandline -ct) 2>/dev/null)
        switch $line
            case :directories
                __fish_complete_directories (commandline -ct)
            case :files
                __fish_complete_path (commandline -ct)
            case '*'
                echo $line
        end
    end
end
complete -c volt-backup -f -k -a '(__volt_backup_words)'
"""
_HEADS = {"bash": "", "zsh": "#compdef volt-backup\n", "fish": ""}
_BODIES = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def script(shell: str) -> str:
    """The script of a shell."""
    return f"{_HEADS[shell]}# Completion of volt-backup for {shell}. {manual.WRITTEN}\n{_BODIES[shell]}"


def answer(top: argparse.ArgumentParser, typed: t.Sequence[str]) -> t.List[str]:
    """What the last one of these words may be, a line each. Nothing is asked and nothing is complained of: a key was pressed, no command given."""
    lead, *before, begun = _joined(typed or [""])
    flag, equals, value = begun.partition("=")
    if equals and flag.startswith("--"):
        before, begun, lead = [*before, flag], value, lead and f"{flag}="
    else:
        lead = ""
    parser, option, operands = _stand(top, before)
    if option is not None:
        found = _values(option, top, before)
    elif begun.startswith("-"):
        found = [(flag, manual.meaning(action)) for action in parser._actions for flag in action.option_strings if flag.startswith("--")]
    else:
        place = _place(parser, len(operands))
        found = _values(place, top, before) if place is not None else []
        if place is not None and place.metavar == "PATH":
            found = _paths(operands[0], before, begun) if operands else [(FILES, "")]
    return [f"{name if name.startswith(':') else lead + name}\t{about}".rstrip("\t") for name, about in found if name.startswith((begun, ":"))]


def _joined(typed: t.Sequence[str]) -> t.List[str]:
    """The words, `--option=value` as one even where bash made three of it. Before them, something if the last one was whole."""
    found: t.List[str] = []
    whole, joins = True, False
    for word in typed:
        equals = word == "=" and bool(found) and found[-1].startswith("--") and "=" not in found[-1]
        whole = not (equals or joins)
        if whole:
            found.append(word)
        else:
            found[-1] += word
        joins = equals
    return ["whole" if whole else "", *found]


def _stand(top: argparse.ArgumentParser, before: t.Sequence[str]) -> t.Tuple[argparse.ArgumentParser, t.Optional[argparse.Action], t.List[str]]:
    """(parser of the command, option that wants a value now, operands of the command) after some words."""
    parser, option, operands = top, None, []  # type: t.Tuple[argparse.ArgumentParser, t.Optional[argparse.Action], t.List[str]]
    for word in before:
        if option is not None:
            option = None
        elif word.startswith("-"):
            action = parser._option_string_actions.get(word)
            option = action if action is not None and action.nargs != 0 else None
        elif parser is top:
            parser = _words(top).choices.get(word, top)
        else:
            operands.append(word)
    return parser, option, operands


def _words(top: argparse.ArgumentParser) -> t.Any:
    return next(action for action in top._actions if isinstance(action, argparse._SubParsersAction))


def _place(parser: argparse.ArgumentParser, number: int) -> t.Optional[argparse.Action]:
    """The operand that comes after so many."""
    operands = [action for action in parser._actions if not action.option_strings]
    if number < len(operands):
        return operands[number]
    return operands[-1] if operands and operands[-1].nargs == "*" else None


def _values(action: argparse.Action, top: argparse.ArgumentParser, before: t.Sequence[str]) -> t.List[t.Tuple[str, str]]:
    """Values of an argument, and what they are: by its choices, or by what stands for it in help texts."""
    if isinstance(action, argparse._SubParsersAction):
        return [(choice.dest, choice.help or "") for choice in action._choices_actions]
    if action.choices:
        return [(str(choice), "") for choice in action.choices]
    found: t.List[t.Tuple[str, str]] = []
    for kind in str(action.metavar).split("|"):
        if kind == "COMMAND":
            found += [(choice.dest, choice.help or "") for choice in _words(top)._choices_actions]
        elif kind in ("DIR", "P"):
            found.append((DIRECTORIES if kind == "DIR" else FILES, ""))
        elif kind == "FILE":
            found.append((FILES, ""))
        elif kind == LATEST:
            found.append((LATEST, "the newest good backup, with one workload only"))
        elif kind in ("ID", "WORKLOAD"):
            found += _named(kind, before)
    return found


def _named(kind: str, before: t.Sequence[str]) -> t.List[t.Tuple[str, str]]:
    """Names of backups, newest first, or of workloads. Who may not look at the store gets none."""
    store, backup_dir = (_given(flag, before) for flag in ("--store", "--backup-dir"))
    workloads: t.Set[str] = set()
    ids: t.List[str] = []
    with tolerated(VoltError, OSError):
        ids, workloads = Manager(store, backup_dir).names()
    if kind == "ID":
        return [(name, "backup") for name in ids]
    with tolerated(VoltError, OSError):
        from .._schedule import job

        workloads |= set(job.declared()) if store is None else set()
    return [(name, "workload") for name in sorted(workloads)]


def _paths(backup: str, before: t.Sequence[str], begun: str) -> t.List[t.Tuple[str, str]]:
    """What is in the directory of a backup that a path leads to so far. Of a remote, nothing: that takes too long for a key."""
    from .._backup import listing

    above = begun[: begun.rfind("/") + 1]
    with tolerated(VoltError, OSError):
        if _given("--remote", before) is None:
            with Manager(_given("--store", before), _given("--backup-dir", before)).opened(backup, True) as origin:
                entries = listing.listed(origin, above or None, False)["entries"]
            kinds = [(one_line(entry["path"].rpartition("/")[2]), entry["type"]) for entry in entries]
            return [(f"{above}{name}/" if kind == "directory" else above + name, kind) for name, kind in kinds]
    return []


def _given(flag: str, before: t.Sequence[str]) -> t.Optional[str]:
    """The last value that an option was given."""
    values: t.List[str] = []
    for number, word in enumerate(before):
        if word.startswith(f"{flag}="):
            values.append(word[len(flag) + 1 :])
        elif word == flag:
            values += before[number + 1 : number + 2]
    return values[-1] if values else None
