# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Exclusion patterns as in gitignore(5), on bytes.

A pattern without a slash, except at its end, matches at every level; any other is anchored at the source. A slash at the end matches only
directories, `**` spans levels, `!` includes again, the last match counts. Paths below an excluded directory are never read.
"""

from __future__ import annotations

import os
import re
import typing as t

from .._base import UsageError, is_regular, open_file

#: How a cache directory marks itself: https://bford.info/cachedir/
CACHEDIR_TAG = b"CACHEDIR.TAG"
CACHEDIR_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"


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


def _compile(text: str) -> t.Optional[_Rule]:
    if "\n" in text or "\0" in text:
        raise UsageError(f"Exclusion {text!r} contains a line break or NUL; write one pattern per list item.")
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        # records are UTF-8, and a pattern that comes back from them as another would protect other things
        raise UsageError(f"Exclusion {os.fsencode(text)!r} is not UTF-8; write ? for each byte that is not valid.")
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
        raise UsageError(f"Exclusion {text!r} matches the source itself; exclude paths below it.")
    try:
        regex = re.compile(_translate(body) + rb"\Z", re.DOTALL)
    except (re.error, IndexError):
        raise UsageError(f"Exclusion {text!r} is not a valid pattern; see gitignore(5).") from None
    return _Rule(regex, by_name, only_directories, takes_back)


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
            out.append(rb"[^/]*")
            i += 1
            while body[i : i + 1] == b"*":
                i += 1
        elif rest[:1] == b"?":
            out.append(rb"[^/]")
            i += 1
        elif rest[:1] == b"[":
            piece, length = _bracket(rest)
            out.append(piece)
            i += length
        elif rest[:1] == b"\\":
            out.append(re.escape(body[i + 1 : i + 2]) or _bad())
            i += 2
        else:
            out.append(re.escape(rest[:1]))
            i += 1
    return b"".join(out)


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
            inside += re.escape(rest[i + 1 : i + 2])
            i += 2
        else:
            char = rest[i : i + 1]
            inside += char if char == b"-" and start < i and inside[-1:] != b"-" else re.escape(char)
            i += 1
    return b"(?!/)[" + (b"^" if negated else b"") + inside + b"]", i + 1


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
    try:
        return is_regular(fd) and os.read(fd, len(CACHEDIR_SIGNATURE)) == CACHEDIR_SIGNATURE
    finally:
        os.close(fd)
