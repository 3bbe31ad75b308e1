# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Tables of packs: which blobs a run's packs have, and which packs there are, with their states as they were when last hashed (see `index`).

::

    table of packs       name -> size of the file, its ctime in ns, plain size; in the order in which the next one numbers them
    table of places      digest of a blob -> number of the pack, offset behind the pack's table, length
    shards               of some shards of packs/, what they were when all packs in them were known to the tables that are named here, this one included
"""

from __future__ import annotations

import json
import struct
import typing as t
import zlib

from . import layout
from .table import Mapped, Table, Unusable, map_file, table_files

_PLACE = struct.Struct("=III")  # number of the pack, offset behind the pack's table, length
_PACK = struct.Struct("=QqQ")  # size of the file, its ctime in ns, plain size
_LINE = struct.Struct("=32sQqQ")  # the same behind its name
_ROW = struct.Struct("=32sIII")  # a place behind its digest
_SUM = struct.Struct("=I")  # CRC-32 of what follows, to the end of the file
#: What a file has of shards is not longer.
_SHARDS_MOST = 1 << 20
#: A state that no file has: what is remembered with it is hashed before it is believed.
SUSPECT = (0, 0)
LOCATION_SIZE = _PLACE.size
#: How often the tables are listed anew where one of the list is gone.
_TRIES = 5

#: A pack as a table has it: name, state, plain size. The size is 0 in a line that has news of the state alone: the pack's blobs
#: are then in another table.
PackLine = t.Tuple[bytes, layout.State, int]
#: What tables tell of a pack: its state when last hashed, None if that is not known, and its plain size, 0 if not all of its blobs are known.
Told = t.Tuple[t.Optional[layout.State], int]
NOTHING: Told = None, 0
#: What tells one state of a directory from another: inode, mtime and ctime in ns.
Stamp = t.Tuple[int, int, int]


class Shards(t.NamedTuple):
    """Shards in which all packs are known to some tables, as they were when that was so.

    :ivar stamps: by name of the shard. :ivar tables: names of the files; if one of them is lost, this says nothing.
    """

    stamps: t.Dict[str, Stamp] = {}
    tables: t.Tuple[str, ...] = ()

    def encode(self) -> bytes:
        data = json.dumps([self.stamps, self.tables]).encode()
        return _SUM.pack(zlib.crc32(data)) + data

    @staticmethod
    def decode(data: bytes) -> Shards:
        """Unusable where that is not what `encode` made."""
        if len(data) < _SUM.size or _SUM.unpack_from(data)[0] != zlib.crc32(data[_SUM.size :]):
            raise Unusable
        try:
            stamps, tables = json.loads(data[_SUM.size :])
            return Shards({shard: tuple(stamp) for shard, stamp in stamps.items()}, tuple(tables))
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise Unusable from None


class PackTable:
    """The tables of one file, or of one that is not written yet.

    :param path: of the file, None for the latter.
    """

    def __init__(self, packs: Table, places: Table, shards: Shards, path: t.Optional[str] = None) -> None:
        self.packs, self.places, self.shards, self.path = packs, places, shards, path

    @staticmethod
    def load(path: str) -> PackTable:
        """Unusable for anything but a file of `parts`; FileNotFoundError, OSError."""
        view = map_file(path)
        packs = Mapped(path, view, 0, _PACK.size)
        places = Mapped(path, view, packs.end, _PLACE.size)
        if len(view) > places.end + _SHARDS_MOST:
            raise Unusable(path)
        return PackTable(packs, places, Shards.decode(view[places.end :]), path)

    def check(self) -> None:
        """Unusable unless all of it is as it was written."""
        for table in (self.packs, self.places):
            if isinstance(table, Mapped):
                table.check()

    def rest(self) -> None:
        """Give back the memory of what was read of the file."""
        if isinstance(self.packs, Mapped):
            self.packs.rest()  # which is the file's, and so that of both

    def parts(self) -> t.Iterator[t.Any]:
        """The file, piece by piece."""
        yield from self.packs.parts()
        yield from self.places.parts()
        yield self.shards.encode()

    def line(self, number: int) -> PackLine:
        """What it has of a pack, by number."""
        size, ctime, plain = _PACK.unpack(self.packs.value(number))
        return self.packs.digest(number), (size, ctime), plain

    def lines(self) -> t.Iterator[PackLine]:
        """What it has of all packs, in their order."""
        return ((name, (size, ctime), plain) for name, size, ctime, plain in _LINE.iter_unpack(self.packs.all()))

    def told(self, name: bytes) -> t.Optional[t.Tuple[layout.State, int]]:
        """(state, plain size) of a pack by name; None where it has nothing of it."""
        number = self.packs.find(name)
        if number < 0:
            return None
        size, ctime, plain = _PACK.unpack(self.packs.value(number))
        return (size, ctime), plain

    def place(self, position: int) -> t.Tuple[bytes, int, int]:
        """(pack, offset, length) of a blob, by its position in the table of places; an empty name where that is of no use."""
        number, offset, length = _PLACE.unpack(self.places.value(position))
        return (self.packs.digest(number) if number < len(self.packs) else b""), offset, length

    def rows(self) -> t.Iterator[t.Tuple[bytes, int, int, int]]:
        """(digest, number of the pack, offset, length) of all blobs, in their order."""
        return t.cast("t.Iterator[t.Tuple[bytes, int, int, int]]", _ROW.iter_unpack(self.places.all()))

    def both(self, digests: Table) -> t.Iterator[t.Tuple[bytes, int]]:
        """(digest, number of the pack) of those blobs that it has and that are among others: goes by the fewer."""
        if len(digests) < len(self.places):
            for digest in map(digests.digest, range(len(digests))):
                position = self.places.find(digest)
                if position >= 0:
                    yield digest, _PLACE.unpack(self.places.value(position))[0]
        else:
            yield from ((digest, number) for digest, number, _offset, _length in self.rows() if digests.find(digest) >= 0)

    def tell(self, name: bytes, state: layout.State, plain: int) -> int:
        """Note a pack, unless it is there; its number. A plain size of 0 where its blobs are not all in these tables, which changes when one comes."""
        number = self.packs.find(name)
        if number < 0:
            return self.packs.add(name, _PACK.pack(*state, plain))
        _name, known, old = self.line(number)
        if plain and not old:
            self.packs.replace(number, _PACK.pack(*known, plain))
        return number


def load_tables(store: str) -> t.Tuple[t.List[PackTable], t.List[str], bool]:
    """(the tables of a store, the newest first; paths of those that are of no use; whether there are such, or one is gone)."""
    for last in [False] * _TRIES + [True]:
        tables: t.List[PackTable] = []
        broken: t.List[str] = []
        gone = False
        for path in table_files(store, "packs-"):
            try:
                tables.append(PackTable.load(path))
            except FileNotFoundError:
                gone = True  # another run has just folded it into one that the list lacks
            except (Unusable, OSError):
                broken.append(path)  # what it told is told by the packs
        if not gone or last:
            break
    return tables, broken, gone or bool(broken)


def all_told(tables: t.Sequence[PackTable], lost: bool) -> t.Dict[bytes, Told]:
    """What tables tell of all their packs; Unusable. :param tables: the newest first, whose word counts. :param lost: files cannot tell of whole packs."""
    found: t.Dict[bytes, Told] = {}
    for entry in reversed(tables):
        for name, state, plain in entry.lines():
            found[name] = state, (0 if lost and entry.path else plain) or found.get(name, NOTHING)[1]
    return found


class Folded:
    """Pack tables on their way. A blob is in as many of them as there are packs that have it.

    :param places: of the table that most go into; its lines tell of whole packs. :param lines: of the packs that it has.
    """

    def __init__(self, places: t.Optional[Table] = None, lines: t.Iterable[PackLine] = ()) -> None:
        self._levels: t.List[PackTable] = []
        self._places = places
        for name, state, plain in lines:
            self._first().packs.add(name, _PACK.pack(*state, plain))

    def __bool__(self) -> bool:
        return bool(self._levels)

    def _first(self) -> PackTable:
        if not self._levels:
            self._levels.append(_empty(self._places))
        return self._levels[0]

    def tell(self, name: bytes, state: layout.State, plain: int) -> None:
        """All blobs of a pack are in these tables from now on; or with a plain size of 0, this is its state."""
        self._first().tell(name, state, plain)

    def add(self, digest: bytes, name: bytes, state: layout.State, offset: int, length: int) -> None:
        """A place of a blob, unless it is known."""
        for entry in self._levels:
            position = entry.places.find(digest)
            if position < 0:
                break
            if entry.place(position)[0] == name:
                return
        else:
            entry = _empty(None if self._levels else self._places)
            self._levels.append(entry)
        entry.places.add(digest, _PLACE.pack(entry.tell(name, state, 0), offset, length))

    def tables(self) -> t.Iterator[t.Tuple[str, PackTable]]:
        """(what to add to the name of its file, table), one at least: the first one last, for its lines rely on the others."""
        self._first()
        for number, entry in reversed(list(enumerate(self._levels, 1))):
            yield (f".{number}" if number > 1 else ""), entry


def _empty(places: t.Optional[Table] = None) -> PackTable:
    return PackTable(Table(_PACK.size), Table(_PLACE.size) if places is None else places, Shards())


def pack_location(number: int, offset: int, length: int) -> bytes:
    """A record of a pack table."""
    return _PLACE.pack(number, offset, length)


def unpack_location(record: bytes) -> t.Tuple[int, int, int]:
    """(number, offset, length) of such a record."""
    return t.cast("t.Tuple[int, int, int]", _PLACE.unpack(record))
