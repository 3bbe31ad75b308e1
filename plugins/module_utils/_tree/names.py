# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Bytes on their way to a screen, and back.

Names are bytes; JSON and terminals want text. Valid UTF-8 passes, any other byte becomes `\\xNN`, and a backslash is
doubled, so that nothing is lost and nothing is ambiguous.
"""

from __future__ import annotations

import os
import re
import typing as t

_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(\\))")


def show(name: t.Union[bytes, str]) -> str:
    """A path as UTF-8 text."""
    raw = os.fsencode(name)
    return raw.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def parse(text: str) -> bytes:
    """The path that `show` would have printed like this; a backslash before anything else stands for itself."""
    return _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]) if match[1] else b"\\", os.fsencode(text))
