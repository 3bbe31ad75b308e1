# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Tables of packs: which blobs a run's packs have, and which packs there are, with their states as they were when last hashed (see `index`)."""

from __future__ import annotations

import struct
import typing as t

from . import layout
from .table import Table, Unusable

PLACE = struct.Struct("=III")  # number of the pack in the table's appendix, offset behind the pack's table, length
_PACK = struct.Struct("=32sQqQ")  # name, size of the file, its ctime in ns, plain size
#: A state that no file has: what is remembered with it is hashed before it is believed.
SUSPECT = (0, 0)

#: A pack as a table's appendix has it: name, state, plain size. The size is 0 in a line that has news of the state alone: the pack's blobs
#: are then in another table.
PackLine = t.Tuple[bytes, layout.State, int]


class PackTable:
    """A table with the names of the packs that its records point into."""

    def __init__(self, table: Table, path: t.Optional[str]) -> None:
        self.table = table
        self.path = path
        if len(table.appendix) % _PACK.size:
            raise Unusable(path)
        self.packs: t.List[PackLine] = [(name, (size, ctime), plain) for name, size, ctime, plain in _PACK.iter_unpack(table.appendix)]


class Folded:
    """Pack tables on their way. A blob is in as many of them as there are packs that have it.

    :param first: the table that most go into; its lines tell of whole packs. :param lines: of the packs that it has.
    """

    def __init__(self, first: Table, lines: t.List[PackLine]) -> None:
        self._levels = [(first, lines, {name: number for number, (name, _state, _plain) in enumerate(lines)})]

    def tell(self, name: bytes, state: layout.State, plain: int) -> None:
        """All blobs of a pack are in these tables from now on; or with a plain size of 0, this is its state."""
        _table, lines, numbers = self._levels[0]
        if name not in numbers:
            numbers[name] = len(lines)
            lines.append((name, state, plain))
        elif plain and not lines[numbers[name]][2]:
            lines[numbers[name]] = (name, lines[numbers[name]][1], plain)

    def add(self, digest: bytes, name: bytes, state: layout.State, offset: int, length: int) -> None:
        """A place of a blob, unless it is known."""
        level = 0
        while level < len(self._levels):
            table, lines, _numbers = self._levels[level]
            position = table.find(digest)
            if position < 0:
                break
            number = PLACE.unpack(table.value(position))[0]
            if number < len(lines) and lines[number][0] == name:
                return
            level += 1
        else:
            self._levels.append((Table(PLACE.size), [], {}))
        table, lines, numbers = self._levels[level]
        if name not in numbers:
            numbers[name] = len(lines)
            lines.append((name, state, 0))
        table.add(digest, PLACE.pack(numbers[name], offset, length))

    def tables(self) -> t.Iterator[t.Tuple[str, Table]]:
        """(what to add to the name of its file, table): the first one last, for its lines rely on the others."""
        for number, (table, lines, _numbers) in reversed(list(enumerate(self._levels, 1))):
            table.appendix = pack_lines(lines)
            yield (f".{number}" if number > 1 else ""), table


def pack_lines(packs: t.Iterable[PackLine]) -> bytes:
    return b"".join(_PACK.pack(name, *state, plain) for name, state, plain in packs)


def pack_location(number: int, offset: int, length: int) -> bytes:
    """A record of a pack table."""
    return PLACE.pack(number, offset, length)


def unpack_location(record: bytes) -> t.Tuple[int, int, int]:
    """(number, offset, length) of such a record."""
    return t.cast("t.Tuple[int, int, int]", PLACE.unpack(record))


LOCATION_SIZE = PLACE.size
