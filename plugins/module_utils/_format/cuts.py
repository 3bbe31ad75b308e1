# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Where a stream is cut into chunks: by its content, so that the dumps of two days share chunks although rows were inserted between.

A chunk has at least 512 KiB. It ends after the first byte from there on that often ends a record (a line, a field, a row), if the CRC-32 of the 64
bytes up to there ends with twelve zero bits: one in 4,096 does. The search for such bytes runs at the speed of C, and about 4,096 of them are checked
in each chunk. A chunk ends after 4 MiB at the latest, or after 32,768 such bytes: then they repeat themselves, and no cut is better than another.

The cuts are no part of the format: a reader takes the lengths from the chunk list. Idea: Muthitacharoen, Chen and Mazieres, "A low-bandwidth network
file system", SOSP 2001.
"""

from __future__ import annotations

import re
import typing as t
from zlib import crc32

#: Bytes of a chunk, save the last of a stream.
LEAST, MOST = 512 << 10, 4 << 20

_ENDS = re.compile(rb"[\n,)}\0]")
_WINDOW = 64
_MASK = (1 << 12) - 1
_CHECKED_MOST = 1 << 15


def first(data: t.Union[bytes, bytearray], size: int) -> int:
    """The length of the first chunk of some bytes: the rest of a stream, or the next MOST bytes of it.

    :param size: how many bytes of `data` count.
    """
    end = min(size, MOST)
    view = memoryview(data)
    at = end
    for number, found in enumerate(_ENDS.finditer(data, LEAST, end), 1):
        at = found.end()
        if not crc32(view[at - _WINDOW : at]) & _MASK or number == _CHECKED_MOST:
            return at
    return end
