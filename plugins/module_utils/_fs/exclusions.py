# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Exclusion patterns as in gitignore(5), on bytes.

A pattern without a slash, except at its end, matches at every level; any other is anchored at the source. A slash at the end matches only
directories, `**` spans levels, `!` includes again, the last match counts. Paths below an excluded directory are never read. Beyond gitignore, `\\xNN` is the
byte of that number, as paths are shown.
"""

from __future__ import annotations

import itertools
import os
import re
import typing as t

from .._base import Closing, UsageError, is_regular, one_line, open_file

#: How a cache directory marks itself: https://bford.info/cachedir/
CACHEDIR_TAG = b"CACHEDIR.TAG"
CACHEDIR_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"


#: A byte as paths are shown with it, where that is not UTF-8.
_BYTE = re.compile(rb"\\x([0-9a-fA-F]{2})")
#: What makes a name in a pattern more than a name.
_SPECIAL = re.compile(rb"[*?\[\\]")

#: Reasons of what is in the backup but for something.
PARTLY = ("attributes", "links")


class Skipped(t.NamedTuple):
    """Something below the source that is not in the backup, other than by a pattern.

    `reason` is unreadable, attributes or links (they could not be kept, all else is in the backup), mount (its directory is kept, empty), mount_point
    (not read: nothing is kept), pseudo or store.
    """

    path: bytes
    reason: str
    detail: str

    @property
    def makes_incomplete(self) -> bool:
        """Whether the backup lacks something that it should have."""
        return self.reason in ("unreadable", *PARTLY)


class _Rule(t.NamedTuple):
    regex: t.Pattern[bytes]
    by_name: bool
    only_directories: bool
    takes_back: bool
    body: bytes


class Exclusions:
    """Compiled patterns. False as a condition if there are none."""

    def __init__(self, patterns: t.Iterable[str]) -> None:
        self.patterns = list(patterns)
        self._rules = [rule for rule in map(_compile, self.patterns) if rule is not None]
        names = [b"(?:" + rule.regex.pattern + b")" for rule in self._rules if rule.by_name]
        self._any_name = re.compile(b"|".join(names), re.DOTALL) if names else None
        self._any_path = any(not rule.by_name for rule in self._rules)

    def __bool__(self) -> bool:
        return bool(self._rules)

    def excludes(self, parent: bytes, name: bytes, is_directory: bool) -> bool:
        """Whether `name` in the directory `parent` (relative to the source, "" for itself), itself not excluded, is left out."""
        if not self._any_path and (self._any_name is None or not self._any_name.match(name)):
            return False
        path = parent + b"/" + name if parent else name
        for rule in reversed(self._rules):
            if rule.only_directories and not is_directory:
                continue
            if rule.regex.match(name if rule.by_name else path):
                return not rule.takes_back
        return False


class Pattern:
    """One pattern, to find paths with: what it would exclude, it finds. UsageError for one that can find nothing.

    :ivar above: the directories that all it finds are in, one below the other. :ivar depth: the most names that a path it finds has; None for any number.
    :ivar names: finds the names that may match, as of `tree.pick`.
    """

    def __init__(self, text: str) -> None:
        rule = _compile(text, "Pattern")
        if rule is None or rule.takes_back:
            raise UsageError(f"Pattern {one_line(text)} matches nothing; write a name or a path. A # or ! at its start needs a backslash in front.")
        self._rule = rule
        names = rule.body.split(b"/")
        literal = list(itertools.takewhile(lambda name: not _SPECIAL.search(name), names[:-1]))
        self.above: t.List[bytes] = [] if rule.by_name else literal
        self.depth = None if rule.by_name or b"**" in names else len(names)
        self.names = framed(rb"[^\0]+" if names[-1] == b"**" else _translate(names[-1]))

    def matches(self, parent: bytes, name: bytes, is_directory: bool) -> bool:
        """Whether it finds `name` in the directory `parent`, which is relative to the source, and empty for the source."""
        rule = self._rule
        if rule.only_directories and not is_directory:
            return False
        return bool(rule.regex.match(name if rule.by_name or not parent else parent + b"/" + name))


def framed(name: bytes) -> t.Pattern[bytes]:
    """What finds names in a list of them, as of `tree.pick`. :param name: a regular expression that matches no NUL."""
    return re.compile(rb"\0(?:" + name + rb")(?=\0)", re.DOTALL)


def _compile(text: str, what: str = "Exclusion") -> t.Optional[_Rule]:
    """:param what: the text is, at the start of a message. Only exclusions are kept, so only they must be UTF-8."""
    if "\n" in text or "\0" in text:
        raise UsageError(f"{what} {text!r} contains a line break or NUL; write one pattern per list item.")
    if what == "Exclusion" and not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        # records are UTF-8, and a pattern that comes back from them as another would protect other things
        raise UsageError(f"Exclusion {os.fsencode(text)!r} is not UTF-8; write ? or its escape, such as \\xff, for each byte that is not valid.")
    pattern = os.fsencode(text)
    stripped = pattern.rstrip(b" ")
    if (len(stripped) - len(stripped.rstrip(b"\\"))) % 2 and stripped != pattern:
        stripped += b" "
    if not stripped or stripped.startswith(b"#"):
        return None
    takes_back = stripped.startswith(b"!")
    body = stripped[1:] if takes_back else stripped
    only_directories = body.endswith(b"/")
    body = body.rstrip(b"/") if only_directories else body
    by_name = b"/" not in body
    body = body.lstrip(b"/")
    if not body:
        raise UsageError(f"{what} {text!r} matches the source itself; write a path below it.")
    try:
        regex = re.compile(_translate(body) + rb"\Z", re.DOTALL)
    except (re.error, IndexError):
        raise UsageError(f"{what} {text!r} is not a valid pattern; see gitignore(5).") from None
    return _Rule(regex, by_name, only_directories, takes_back, body)


def _translate(body: bytes) -> bytes:
    """A regular expression for a pattern without its marks at either end."""
    out, i = [], 0
    while i < len(body):
        rest = body[i:]
        if rest.startswith(b"**/") and (i == 0 or body[i - 1 : i] == b"/"):
            out.append(rb"(?:.*/)?")
            i += 3
        elif rest == b"**" and i and body[i - 1 : i] == b"/":
            out.append(rb".+")
            i += 2
        elif rest[:1] == b"*":
            out.append(rb"[^/\0]*")
            i += 1
            while body[i : i + 1] == b"*":
                i += 1
        elif rest[:1] == b"?":
            out.append(rb"[^/\0]")
            i += 1
        elif rest[:1] == b"[":
            piece, length = _bracket(rest)
            out.append(piece)
            i += length
        elif rest[:1] == b"\\":
            char, length = _escaped(rest)
            out.append(char)
            i += length
        else:
            out.append(re.escape(rest[:1]))
            i += 1
    return b"".join(out)


def _escaped(rest: bytes) -> t.Tuple[bytes, int]:
    """What a backslash stands for, and how long that is written."""
    byte = _BYTE.match(rest)
    char = bytes([int(byte[1], 16)]) if byte else rest[1:2]
    if not char or byte and char in b"/\0":
        _bad()
    return re.escape(char), byte.end() if byte else 2


def _bracket(rest: bytes) -> t.Tuple[bytes, int]:
    i = 1
    negated = rest[i : i + 1] in (b"!", b"^")
    i += negated
    start = i
    inside = b""
    while rest[i : i + 1] != b"]" or i == start:
        if i >= len(rest):
            _bad()
        end = rest.find(b"]", i + 2)
        if rest.startswith(b"[:", i) and end < 0:
            _bad()
        if rest.startswith(b"[:", i) and end > i + 2 and rest[end - 1 : end] == b":":
            end -= 1
            inside += _classes(rest[i + 2 : end])
            i = end + 2
        elif rest[i : i + 1] == b"\\":
            char, length = _escaped(rest[i:])
            inside += char
            i += length
        else:
            char = rest[i : i + 1]
            inside += char if char == b"-" and start < i and inside[-1:] != b"-" else re.escape(char)
            i += 1
    return b"(?![/\0])[" + (b"^" if negated else b"") + inside + b"]", i + 1


def _classes(name: bytes) -> bytes:
    known = {
        b"alnum": b"0-9A-Za-z", b"alpha": b"A-Za-z", b"blank": b" \\t", b"digit": b"0-9", b"lower": b"a-z", b"upper": b"A-Z",
        b"space": b" \\t\\n\\r\\f\\v", b"xdigit": b"0-9A-Fa-f", b"punct": b"!-/:-@\\[-`{-~", b"print": b" -~", b"graph": b"!-~",
        b"cntrl": b"\\x00-\\x1f\\x7f",
    }  # fmt: skip
    return known.get(name) or _bad()


def _bad() -> t.NoReturn:
    raise re.error("bad pattern")


def is_cache(directory: int) -> bool:
    """Whether a directory's CACHEDIR.TAG is a true one."""
    try:
        fd = open_file(CACHEDIR_TAG, directory=directory)
    except OSError:
        return False
    with Closing(fd):
        return is_regular(fd) and os.read(fd, len(CACHEDIR_SIGNATURE)) == CACHEDIR_SIGNATURE
