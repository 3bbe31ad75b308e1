# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The output of a command, or of what is piped in, as a file of the backup."""

from __future__ import annotations

import contextlib
import os
import typing as t

from .._base import SourceError, UsageError, parse, process, show
from .._capture.stream import Read, Stream

#: The directory of a backup that has its dumps.
DUMPS = b".volt-dumps"


def check_name(option: str, text: str) -> bytes:
    """A name of a file at the top of a backup; UsageError where it is none."""
    name = parse(text)
    if not name or name in (b".", b"..", DUMPS) or b"/" in name or b"\0" in name or len(name) > 255:
        raise UsageError(f"Option {option} must be the name of a file, without a directory, and not {show(DUMPS)} (got {text!r}).")
    return name


def of_command(words: t.Sequence[str], file: t.Optional[str], allow_empty: bool, above: bytes) -> Stream:
    """A command of the user's. :param file: the name of the file; None for that of the program. :param above: its directory, with a slash, or nothing."""
    if not words[0] or any("\0" in word for word in words):
        raise UsageError("Option command must start with a program, and must not contain NUL characters.")
    name = check_name("command_file", os.path.basename(words[0]) if file is None else file)
    output = process.Output("Command", words)
    return Stream(above + name, lambda: _filled(output, f"The command {words[0]}", allow_empty), only_reads=False)


def of_input(file: t.BinaryIO, text: str, allow_empty: bool, above: bytes) -> Stream:
    """What is piped in, as a file."""
    return Stream(above + check_name("stdin", text), lambda: _filled(contextlib.nullcontext(file.read), "The program that is piped in", allow_empty))


@contextlib.contextmanager
def _filled(opened: t.ContextManager[Read], what: str, allow_empty: bool) -> t.Iterator[Read]:
    """The same, where nothing at all is a failure: a program that fails in a pipe looks like that."""
    size = 0

    def counting(most: int) -> bytes:
        nonlocal size
        data = read(most)
        size += len(data)
        return data

    with opened as read:
        yield counting
    if not size and not allow_empty:
        raise SourceError(f"{what} wrote nothing, so it probably failed; if that is right, set `allow_empty: true`.")
