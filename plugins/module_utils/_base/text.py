# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Converts bytes for a screen, and back.

Names are bytes; JSON and terminals need text. Valid UTF-8 is kept, any other byte becomes `\\xNN`, and a backslash is
doubled, so that nothing is lost or ambiguous.
"""

from __future__ import annotations

import os
import re
import typing as t

from .errors import UsageError

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_ERROR = re.compile(r"\b(?:error|fatal|panic)\b", re.IGNORECASE)
_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(\\))")


def show(name: t.Union[bytes, str]) -> str:
    """A path as UTF-8 text."""
    raw = name if isinstance(name, bytes) else _bytes(name)
    return raw.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def _bytes(text: str) -> bytes:
    """A path as the system has it: by the locale, and where that has no such letters, as in what a record says, as UTF-8."""
    try:
        return os.fsencode(text)
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape")


def one_line(text: t.Any) -> str:
    """Text that cannot leave its line or control a terminal: control characters, which a name may contain, become escapes."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", "" if text is None else str(text))


def brief(text: t.Any, most: int = 1000) -> str:
    """Text from others, such as a guest or a program: one line of limited length."""
    line = one_line(text)
    return line if len(line) <= most else line[: most - 1] + "…"


def excerpt(text: str, most: int = 300) -> str:
    """What a program said, as one line of limited length: its beginning and its end.

    It begins with the first line that names an error, if there is one: warnings come before it, and a long query may come after it.
    """
    lines = text.splitlines()
    first = next((number for number, line in enumerate(lines) if _ERROR.search(line)), 0)
    line = one_line(" ".join(" ".join(lines[first:]).split()))
    half = most // 2
    return line if len(line) <= most else f"{line[: half - 3]} … {line[-half:]}"


def parse(text: str) -> bytes:
    """The path that `show` would have printed like this; a backslash before anything else is kept."""
    raw = _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]) if match[1] else b"\\", _bytes(text))
    if b"\0" in raw:
        raise UsageError(f"Path {one_line(text)} contains a NUL character; remove it.")
    return raw
