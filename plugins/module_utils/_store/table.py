# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""A compact table from digests to small fixed-size values: a million entries without a million Python objects.

Records lie one behind the other (32 bytes of digest, then the value); a separate array of 32-bit slots, at most half
full, says which record a digest may be (open addressing, linear probing; digests are uniform, so their first
bytes are the hash). The file form is the same bytes, memory-mapped, behind a checksum: nothing is parsed on opening.
"""

from __future__ import annotations

import mmap
import os
import stat
import struct
import typing as t
import zlib
from array import array

from .._base import open_file

_MAGIC = b"VOLTIDX3"
_HEADER = struct.Struct("=8sIIIIII")  # magic, CRC-32 of all behind it, byte order, records, slots, value size, appendix size
_ORDER = 0x01020304
_DIGEST = 32


class Unusable(Exception):
    """A derived file is not what it should be; its reader makes it anew."""


class Table:
    """Digest -> value of `value_size` bytes. `find` gives a position, `value` its value."""

    def __init__(self, value_size: int, expected: int = 0) -> None:
        self._width = _DIGEST + value_size
        self._records: t.Any = bytearray()
        self._base = 0  # where records start in the bytes that hold them
        self._count = 0
        slots = 1024
        while slots < 2 * expected:
            slots *= 2
        self._slots: t.Any = array("I", [0]) * slots
        self._mask = slots - 1
        self.appendix = b""  # the owner's own; a multiple of 4 bytes

    def __len__(self) -> int:
        return self._count

    def find(self, digest: bytes) -> int:
        """The position of a digest, or -1."""
        slots, records, width, mask, base = self._slots, self._records, self._width, self._mask, self._base
        slot = int.from_bytes(digest[:8], "little") & mask
        while True:
            position = slots[slot]
            if not position:
                return -1
            start = base + (position - 1) * width
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
        start = self._base + position * self._width
        return bytes(self._records[start : start + _DIGEST])

    def value(self, position: int) -> bytes:
        start = self._base + position * self._width
        return bytes(self._records[start + _DIGEST : start + self._width])

    def replace(self, position: int, value: bytes) -> None:
        start = position * self._width
        self._records[start + _DIGEST : start + self._width] = value

    def parts(self) -> t.Iterator[t.Any]:
        """The file form, piece by piece."""
        body = [self.appendix, memoryview(self._records), memoryview(self._slots).cast("B")]
        header = _HEADER.pack(
            _MAGIC, 0, _ORDER, self._count, self._mask + 1, self._width - _DIGEST, len(self.appendix)
        )
        checksum = zlib.crc32(header[12:])
        for piece in body:
            checksum = zlib.crc32(piece, checksum)
        yield header[:8] + struct.pack("=I", checksum) + header[12:]
        yield from body

    @classmethod
    def load(cls, path: str, value_size: int) -> Table:
        """Map a file that `parts` made; Unusable for any other, FileNotFoundError where there is none."""
        fd = open_file(path)
        try:
            info = os.fstat(fd)
            size = info.st_size
            if not stat.S_ISREG(info.st_mode) or size < _HEADER.size:
                raise Unusable(path)
            view = mmap.mmap(fd, size, prot=mmap.PROT_READ)
        finally:
            os.close(fd)
        magic, checksum, order, count, slots, width, appendix = _HEADER.unpack_from(view)
        start = _HEADER.size + appendix
        records = count * (_DIGEST + width)
        sound = (
            (magic, order, width) == (_MAGIC, _ORDER, value_size)
            and size == start + records + 4 * slots
            and slots > count
            and slots & (slots - 1) == 0
            and zlib.crc32(memoryview(view)[12:]) == checksum
        )
        if not sound:
            raise Unusable(path)
        slot = view.find(b"\0\0\0\0", start + records)
        while slot >= 0 and (slot - start - records) % 4:
            slot = view.find(b"\0\0\0\0", slot + 1)
        if slot < 0:
            raise Unusable(path)  # without an empty slot a search would never end
        table = cls.__new__(cls)
        table._width = _DIGEST + width
        table._records, table._base, table._count = view, start, count
        table._slots = memoryview(view)[start + records :].cast("I")
        table._mask = slots - 1
        table.appendix = view[_HEADER.size : start]
        return table
