# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""A compact table from digests to small fixed-size values: a million entries without a million Python objects.

Records lie one behind the other (32 bytes of digest, then the value); a separate array of 32-bit slots, at most half
full, says which record a digest may be (open addressing, linear probing; digests are uniform, so their first
bytes are the hash). The file form is the same bytes, memory-mapped, behind checksums of its blocks: nothing is parsed on opening, and a block is
compared with its checksum when something in it is first asked for. So opening costs the same for any size.
"""

from __future__ import annotations

import mmap
import os
import stat
import struct
import time
import typing as t
import zlib
from array import array

from .._base import Closing, open_file

_MAGIC = b"VOLTIDX4"
_HEADER = struct.Struct("=8sIIIII")  # magic, CRC-32 of all behind it up to the first block, byte order, records, slots, value size
_ORDER = 0x01020304
_DIGEST = 32
#: A block has so many bytes, as a power of two.
_BLOCK = 14
_SUM = 4  # bytes of a checksum


class Unusable(Exception):
    """A derived file is not what it should be; its reader makes it anew."""


class Table:
    """Digest -> value of `value_size` bytes. `find` gives a position, `value` its value."""

    def __init__(self, value_size: int, expected: int = 0) -> None:
        self._width = _DIGEST + value_size
        self._records: t.Any = bytearray()
        self._count = 0
        slots = 1024
        while slots < 2 * expected:
            slots *= 2
        self._slots: t.Any = array("I", [0]) * slots
        self._mask = slots - 1

    def __len__(self) -> int:
        return self._count

    def all(self) -> memoryview:
        """All records, one behind the other."""
        return memoryview(self._records)

    def find(self, digest: bytes) -> int:
        """The position of a digest, or -1."""
        slots, records, width, mask = self._slots, self._records, self._width, self._mask
        slot = int.from_bytes(digest[:8], "little") & mask
        while True:
            position = slots[slot]
            if not position:
                return -1
            start = (position - 1) * width
            if records[start : start + _DIGEST] == digest:
                return position - 1
            slot = (slot + 1) & mask

    def add(self, digest: bytes, value: bytes) -> int:
        """Append a digest that is not in the table yet; its position."""
        position = self._count
        if 2 * position >= self._mask:
            self._grow()
        self._records += digest
        self._records += value
        self._count += 1
        self._occupy(digest, position)
        return position

    def _occupy(self, digest: bytes, position: int) -> None:
        slots, mask = self._slots, self._mask
        slot = int.from_bytes(digest[:8], "little") & mask
        while slots[slot]:
            slot = (slot + 1) & mask
        slots[slot] = position + 1

    def _grow(self) -> None:
        size = 4 * (self._mask + 1)
        self._slots = array("I")  # the old one goes first: together they would be the peak of a large walk's memory
        self._slots = array("I", [0]) * size
        self._mask = size - 1
        for position in range(self._count):
            self._occupy(self.digest(position), position)

    def digest(self, position: int) -> bytes:
        start = position * self._width
        return bytes(self._records[start : start + _DIGEST])

    def value(self, position: int) -> bytes:
        start = position * self._width
        return bytes(self._records[start + _DIGEST : start + self._width])

    def replace(self, position: int, value: bytes) -> None:
        start = position * self._width
        self._records[start + _DIGEST : start + self._width] = value

    def parts(self) -> t.Iterator[t.Any]:
        """The file form, piece by piece."""
        body = [memoryview(self._records), memoryview(self._slots).cast("B")]
        sums = _sums(body)
        header = _HEADER.pack(_MAGIC, 0, _ORDER, self._count, self._mask + 1, self._width - _DIGEST)
        yield header[:8] + struct.pack("=I", zlib.crc32(sums, zlib.crc32(header[12:]))) + header[12:]
        yield sums
        yield from body

    @staticmethod
    def load(path: str, value_size: int) -> Mapped:
        """Map a file that `parts` made; Unusable for any other, FileNotFoundError where there is none."""
        view = map_file(path)
        table = Mapped(path, view, 0, value_size)
        if table.end != len(view):
            raise Unusable(path)
        return table


def _sums(body: t.Iterable[memoryview]) -> bytes:
    """Checksums of the blocks of what these pieces are together."""
    sums, checksum, left = bytearray(), 0, 1 << _BLOCK
    for piece in body:
        at = 0
        while at < len(piece):
            part = piece[at : at + left]
            at, left, checksum = at + len(part), left - len(part), zlib.crc32(part, checksum)
            if not left:
                sums += struct.pack("=I", checksum)
                checksum, left = 0, 1 << _BLOCK
    if left < 1 << _BLOCK:
        sums += struct.pack("=I", checksum)
    return bytes(sums)


def map_file(path: str) -> mmap.mmap:
    """The bytes of a regular file; Unusable for anything else, OSError where it cannot be had."""
    with Closing(open_file(path)) as fd:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or not info.st_size:
            raise Unusable(path)
        return mmap.mmap(fd, info.st_size, prot=mmap.PROT_READ)


class Mapped(Table):
    """A table in a mapped file; nothing is added to it. What is asked for raises Unusable where its block is not as it was written.

    :param start: where it starts. :ivar end: where it ends.
    """

    def __init__(self, path: str, view: mmap.mmap, start: int, value_size: int) -> None:
        self._path, self._view = path, view
        body = start + _HEADER.size
        if len(view) < body:
            raise Unusable(path)
        magic, checksum, order, self._count, slots, width = _HEADER.unpack_from(view, start)
        self._width, self._mask = _DIGEST + width, slots - 1
        size = self._count * self._width + 4 * slots
        blocks = -(-size >> _BLOCK)
        self._first = body + _SUM * blocks
        self.end = self._first + size
        sound = (
            (magic, order, width) == (_MAGIC, _ORDER, value_size)
            and self.end <= len(view)
            and slots > self._count  # without an empty slot a search would never end
            and slots & (slots - 1) == 0
            and zlib.crc32(view[start + 12 : self._first]) == checksum
        )
        if not sound:
            raise Unusable(path)
        self._sums = memoryview(view)[body : self._first].cast("I")
        self._sound = bytearray(blocks)
        self._slots = memoryview(view)[self._first + self._count * self._width : self.end].cast("I")

    def rest(self) -> None:
        """Give back the memory of what was read of the file. It is read again where it is asked for."""
        self._view.madvise(mmap.MADV_DONTNEED)

    def _check(self, block: int) -> None:
        """Compare a block with its checksum, once."""
        if block >= len(self._sound):
            raise Unusable(self._path)
        start = self._first + (block << _BLOCK)
        if zlib.crc32(self._view[start : min(start + (1 << _BLOCK), self.end)]) != self._sums[block]:
            raise Unusable(self._path)
        self._sound[block] = 1

    def all(self) -> memoryview:
        self.check()
        return memoryview(self._view)[self._first : self._first + self._count * self._width]

    def check(self) -> None:
        """Compare all blocks with their checksums."""
        for block, sound in enumerate(self._sound):
            if not sound:
                self._check(block)

    def _piece(self, start: int, length: int) -> bytes:
        """Some of the records' bytes, which lie in two blocks at most."""
        sound, first, last = self._sound, start >> _BLOCK, start + length - 1 >> _BLOCK
        if last >= len(sound):
            raise Unusable(self._path)
        if not sound[first]:
            self._check(first)
        if not sound[last]:
            self._check(last)
        start += self._first
        return self._view[start : start + length]

    def find(self, digest: bytes) -> int:
        slots, sound, mask, base = self._slots, self._sound, self._mask, self._count * self._width
        slot = int.from_bytes(digest[:8], "little") & mask
        for _turn in range(mask + 1):
            block = base + 4 * slot >> _BLOCK
            if not sound[block]:
                self._check(block)
            position = slots[slot]
            if not position:
                return -1
            if self._piece((position - 1) * self._width, _DIGEST) == digest:
                return position - 1
            slot = (slot + 1) & mask
        raise Unusable(self._path)

    def digest(self, position: int) -> bytes:
        return self._piece(position * self._width, _DIGEST)

    def value(self, position: int) -> bytes:
        return self._piece(position * self._width + _DIGEST, self._width - _DIGEST) if self._width > _DIGEST else b""


# ---- tables of a store


def table_files(store: str, prefix: str) -> t.List[str]:
    """Derived files of one sort, newest first: a run's name begins with its time."""
    top = os.path.join(store, "index")
    try:
        return [os.path.join(top, name) for name in sorted(os.listdir(top), reverse=True) if name.startswith(prefix)]
    except OSError:
        return []  # what it would tell is told by the packs and objects


def foldable(tables: t.List[t.Tuple[int, t.Any]], size: int) -> t.List[t.Any]:
    """The newest neighbours that are not much larger than what is being written: a table is rewritten a few times, not always."""
    chosen = []
    for count, entry in tables:
        if count > 2 * size + 4096:
            break
        chosen.append(entry)
        size += count
    return chosen


def run_name(store: str) -> str:
    """A name for a run's directory and the tables that it leaves: it sorts behind those of all earlier tables, also where the clock went back."""
    moment = time.time_ns()
    try:
        for name in os.listdir(os.path.join(store, "index")):
            number = name.partition("-")[2].partition("-")[0]
            if number.isdigit() and len(number) == 20:
                moment = max(moment, int(number) + 1)
    except OSError:
        pass  # no tables, nothing to sort behind
    return f"{moment:020d}-{os.getpid()}-{os.urandom(4).hex()}"
