# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""What changed in the text of a file between two backups, as a unified diff for a screen."""

from __future__ import annotations

import difflib
import re
import typing as t

from .._base import Damaged, one_line, show
from .._format.tree import Entry
from . import dump
from .origin import Origin

#: Bytes and lines of a file that are compared: difflib takes seconds for more.
_MOST, _LINES = 1 << 20, 20_000
_LINE = re.compile(rb"[^\n]*\n|[^\n]+\Z")
_NO_END = "\\ No newline at end of file\n"


class Side(t.NamedTuple):
    """A file of a backup; `entry` is None where the backup has none there."""

    origin: Origin
    path: bytes
    entry: t.Optional[Entry]


class TextDiff(t.NamedTuple):
    """A unified diff, or why there is none, as a sentence. Neither where there is nothing to compare."""

    text: t.Optional[str] = None
    reason: t.Optional[str] = None


def compare(old: Side, new: Side) -> TextDiff:
    """The changes of a file. Both must be files, or one of them nothing."""
    there = [side for side in (old, new) if side.entry is not None]
    if not all(side.entry.is_file for side in there if side.entry is not None) or len({_content(side) for side in (old, new)}) == 1:
        return TextDiff()
    shown = one_line(show(there[0].path))
    if any(side.entry.size > _MOST for side in there if side.entry is not None):
        return TextDiff(reason=f"The text of {shown} was not compared, because it is larger than {_MOST >> 20} MiB.")
    try:
        texts = [_read(side) for side in (old, new)]
    except Damaged as error:
        return TextDiff(reason=f"The text of {shown} was not compared, because it is damaged: {error.message}")
    if any(b"\0" in text for text in texts):
        return TextDiff(reason=f"The content of {shown} differs, and it is not text.")
    before, after = (_LINE.findall(text) for text in texts)
    if max(len(before), len(after)) > _LINES:
        return TextDiff(reason=f"The text of {shown} was not compared, because it has more than {_LINES} lines.")
    # of bytes: lines that look the same on a screen may differ
    pieces = difflib.diff_bytes(difflib.unified_diff, before, after, _name(old), _name(new))
    return TextDiff("".join(map(_shown, pieces)))


def _content(side: Side) -> t.Tuple[bool, bytes]:
    return (False, b"") if side.entry is None else (True, side.entry.content)


def _read(side: Side) -> bytes:
    if side.entry is None:
        return b""
    with side.origin.supplying(dump.digests(side.origin.blobs, side.entry), 0):
        return b"".join(dump.pieces(side.origin.blobs, side.entry))


def _name(side: Side) -> bytes:
    return f"{side.origin.sidecar['id']}:{one_line(show(side.path))}".encode() if side.entry is not None else b"/dev/null"


def _shown(line: bytes) -> str:
    """A line that cannot control a terminal; tabs stay."""
    text = line.decode("utf-8", "backslashreplace")
    shown = "\t".join(map(one_line, text.rstrip("\n").split("\t"))) + "\n"
    return shown if text.endswith("\n") else shown + _NO_END
