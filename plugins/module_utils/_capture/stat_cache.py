# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The stat cache: what the last walk of a source found, for the next walk to compare with.

A derived file, one for each source. Each directory is a record: its names, four numbers for each entry (inode, size, mtime, ctime), the
digest of its tree, and what else a walk needs of a directory that it does not read. A record contains the positions of its
subdirectories' records, so the file is read through a memory map, a directory at a time along the walk. A subtree is contiguous
and its offsets are relative: an unchanged one is copied to the next file as it is.

Trusted only if that is safe: an entry whose ctime is not at least 2 s older than the scan's start is written so that it never
matches; records have checksums; and the file names all packs that it uses, so that, if one of them is missing, every blob is
looked up (`all_packs`).
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

_MAGIC = b"VOLTSCN1"
_BEGIN = struct.Struct("=8sII")
_TRAILER = struct.Struct("=QQII8s")  # root record, packs, byte order, CRC-32 of packs and the fields before it, magic
_RECORD = struct.Struct("=IIQ8I32s6Q")
_ORDER = 0x01020304
#: A ctime that no entry has.
NEVER = -(1 << 62)
RACY = 2_000_000_000


class Stats(t.NamedTuple):
    """Counts of one directory's own entries, or of a whole tree."""

    files: int = 0
    directories: int = 0
    symlinks: int = 0
    others: int = 0
    size: int = 0
    blobs: int = 0

    def __add__(self, other: t.Any) -> Stats:
        return Stats(*(a + b for a, b in zip(self, other)))


class DirectoryFacts(t.NamedTuple):
    """What a walk remembers of a directory."""

    tree: bytes
    stats: Stats
    names: bytes
    numbers: bytes
    subdirectories: array
    linked: array
    objects: t.List[t.Tuple[bytes, int]]
    chunked: t.List[t.Tuple[bytes, int]]
    uids: array
    gids: array


class DirectoryRecord:
    """One directory in a scan file."""

    def __init__(self, scan: t.Optional[Scan], offset: int, length: int, subtree: int, facts: DirectoryFacts, children: t.Tuple[int, ...]) -> None:
        self._scan, self._offset, self._length, self._subtree = scan, offset, length, subtree
        self.facts = facts
        self._children = children
        self._positions: t.Optional[t.Dict[bytes, int]] = None

    def child(self, position: int) -> t.Optional[DirectoryRecord]:
        """The record of the subdirectory at a position in `facts.subdirectories`; None if there is none."""
        back = self._children[position]
        return self._scan.record(self._offset - back) if back and self._scan else None

    def positions(self) -> t.Dict[bytes, int]:
        """Name -> position in the directory."""
        if self._positions is None:
            names = self.facts.names
            self._positions = {name: at for at, name in enumerate(names.split(b"\0"))} if names else {}
        return self._positions

    def place_of(self, name: bytes) -> int:
        """The place of a subdirectory in `facts.subdirectories`, or -1."""
        position = self.positions().get(name, -1)
        try:
            return self.facts.subdirectories.index(position)
        except ValueError:
            return -1

    def rest(self) -> None:
        """Its directory is done: give back the memory of what is no longer asked for."""
        self.facts = self.facts._replace(names=b"", numbers=b"", objects=[], chunked=[])
        self._positions = None

    def copy(self) -> t.Tuple[bytes, int]:
        """The subtree's bytes, and the offset of this record in them."""
        end = self._offset + self._length
        raw = self._scan.view[end - self._subtree : end] if self._scan else b""
        return raw, self._subtree - self._length


class Scan:
    """A scan file, mapped. `root()` is None if there is no usable one."""

    def __init__(self, path: str) -> None:
        self._root = -1
        self.packs: t.List[bytes] = []
        self.view = b""  # type: t.Any
        try:
            fd = open_file(path)
        except OSError:
            return
        try:
            info = os.fstat(fd)
            size = info.st_size
            if not stat.S_ISREG(info.st_mode) or size < _BEGIN.size + _TRAILER.size:
                return
            self.view = mmap.mmap(fd, size, prot=mmap.PROT_READ)
        except OSError:
            return
        finally:
            os.close(fd)
        start = size - _TRAILER.size
        root, count, order, checksum, magic = _TRAILER.unpack_from(self.view, start)
        packs = start - 32 * count
        if (order, magic) != (_ORDER, _MAGIC) or packs < _BEGIN.size or zlib.crc32(self.view[packs : start + 20]) != checksum:
            return
        self.packs = [self.view[at : at + 32] for at in range(packs, start, 32)]
        self._root = root

    def root(self) -> t.Optional[DirectoryRecord]:
        """The record of the source directory; created again, so that a scan and its records form no cycle and the map ends with them."""
        return self.record(self._root) if self._root >= 0 else None

    def rest(self) -> None:
        """Give back the memory of what was read."""
        if isinstance(self.view, mmap.mmap):
            self.view.madvise(mmap.MADV_DONTNEED)

    def record(self, offset: int) -> t.Optional[DirectoryRecord]:
        view = self.view
        if not 0 <= offset <= len(view) - _RECORD.size:
            return None
        fields = _RECORD.unpack_from(view, offset)
        checksum, length, subtree = fields[:3]
        raw = view[offset : offset + length]
        if length < _RECORD.size or len(raw) != length or zlib.crc32(memoryview(raw)[4:]) != checksum:
            return None
        try:
            return self._decode(raw, fields, offset)
        except (struct.error, ValueError):
            return None  # a checksum proves that it was written so, not that it is valid

    def _decode(self, raw: bytes, fields: t.Tuple[t.Any, ...], offset: int) -> DirectoryRecord:
        length, subtree = fields[1:3]
        count, names_size, subs, linked, objects, chunked, uids, gids = fields[3:11]
        at = _RECORD.size

        def take(size: int) -> bytes:
            nonlocal at
            at += size
            return raw[at - size : at]

        facts = DirectoryFacts(
            tree=fields[11],
            stats=Stats(*fields[12:18]),
            names=take(names_size),
            numbers=take(32 * count),
            subdirectories=array("I", take(4 * subs)),
            linked=array("I", take(4 * linked)),
            uids=array("I", take(4 * uids)),
            gids=array("I", take(4 * gids)),
            objects=list(struct.iter_unpack("=32sQ", take(40 * objects))),  # type: ignore[arg-type]
            chunked=list(struct.iter_unpack("=32sQ", take(40 * chunked))),  # type: ignore[arg-type]
        )
        children = struct.unpack(f"={subs}Q", take(8 * subs))
        return DirectoryRecord(self, offset, length, subtree, facts, children)


class Written(t.NamedTuple):
    """The offsets of a directory's record and of its subtree in the file being written."""

    offset: int
    start: int


Known = t.Union[Written, DirectoryRecord, None]


class Writer:
    """Writes a scan file, from the leaves up. `place` of the children comes before that of their parent."""

    def __init__(self, file: t.BinaryIO, started: int) -> None:
        self._file = file
        self._at = _BEGIN.size
        self._fresh = started - RACY
        file.write(_BEGIN.pack(_MAGIC, _ORDER, 0))

    def mark_racy(self, numbers: bytes, everything: bool, suspect: t.Iterable[int]) -> bytes:
        """The numbers with a ctime that never matches for entries that are too young, or that the caller suspects."""
        values = array("q", numbers)
        ctimes = values[3::4]
        if everything:
            values[3::4] = array("q", [NEVER]) * len(ctimes)
            return values.tobytes()
        if ctimes and max(ctimes) > self._fresh:
            for position, ctime in enumerate(ctimes):
                if ctime > self._fresh:
                    values[4 * position + 3] = NEVER
        for position in suspect:
            values[4 * position + 3] = NEVER
        return values.tobytes()

    def place(self, facts: DirectoryFacts, children: t.Sequence[Known]) -> Written:
        """Append a directory; `children` in the order of `facts.subdirectories`: written ones, or unchanged ones to copy."""
        written = [child for child in children if isinstance(child, Written)]
        start = min((child.start for child in written), default=self._at)
        offsets = []
        for child in children:
            if isinstance(child, DirectoryRecord):
                raw, inner = child.copy()
                offsets.append(self._at + inner)
                self._write(raw)
            else:
                offsets.append(child.offset if child else -1)
        here = self._at
        sections = b"".join(
            (
                facts.names,
                facts.numbers,
                facts.subdirectories.tobytes(),
                facts.linked.tobytes(),
                facts.uids.tobytes(),
                facts.gids.tobytes(),
                *(struct.pack("=32sQ", *item) for item in facts.objects),
                *(struct.pack("=32sQ", *item) for item in facts.chunked),
                struct.pack(f"={len(offsets)}Q", *(here - offset if offset >= 0 else 0 for offset in offsets)),
            )
        )
        length = _RECORD.size + len(sections)
        head = _RECORD.pack(
            0, length, here + length - start, len(facts.numbers) // 32, len(facts.names), len(facts.subdirectories),
            len(facts.linked), len(facts.objects), len(facts.chunked), len(facts.uids), len(facts.gids), facts.tree, *facts.stats,
        )  # fmt: skip
        checksum = zlib.crc32(sections, zlib.crc32(head[4:]))
        self._write(struct.pack("=I", checksum) + head[4:] + sections)
        return Written(here, start)

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._at += len(data)

    def end(self, root: Written, packs: t.Iterable[bytes]) -> None:
        """Write the packs that all of this relies on, and the way in."""
        names = b"".join(sorted(set(packs)))
        head = _TRAILER.pack(root.offset, len(names) // 32, _ORDER, 0, _MAGIC)[:20]
        self._file.write(names + head + struct.pack("=I8s", zlib.crc32(names + head), _MAGIC))
        self._file.flush()
