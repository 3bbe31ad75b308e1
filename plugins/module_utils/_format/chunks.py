# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Large and sparse files: the chunk list, and finding holes.

A file above 8 MiB is a list of 1 MiB chunks at fixed, aligned offsets, so that a changed page of a disk image costs one chunk, and a
chunk can be cloned into place. The list is a blob::

    8 bytes   "VOLTCHNK"
    u64       size of the file
    u32       count of holes
    holes     u64 offset, u64 length each; ascending, not touching
    digests   32 bytes for each chunk that does not lie in a hole entirely; holes inside a chunk read as zeros

A stream (see `cuts`) has chunks of different lengths, and no holes::

    8 bytes   "VOLTCUTS"
    u64       size of the file
    chunks    u32 length, 32 bytes digest each

Holes come from SEEK_DATA and SEEK_HOLE (lseek(2)): allocated zeros are data. Smaller sparse files keep their holes in their tree entry.
"""

from __future__ import annotations

import itertools
import struct
import typing as t
from array import array
from bisect import bisect_right

from .._base import Damaged
from . import magic

CHUNK = 1 << 20
#: Files up to here are one blob.
WHOLE_MOST = 8 << 20
#: Files up to here are packed.
PACKED_MOST = 128 << 10
#: Chunk lists up to here are read: a file of about 8 TiB.
LIST_LIMIT = 256 << 20

_HEADER = struct.Struct("<8sQI")
_HOLE = struct.Struct("<QQ")
_CUTS_HEADER = struct.Struct("<8sQ")
_CUT = struct.Struct("<I32s")

Holes = t.Tuple[t.Tuple[int, int], ...]


def spans(size: int, holes: Holes) -> t.Iterator[t.Tuple[int, int]]:
    """(offset, length) of each chunk with data."""
    index = offset = 0
    while offset < size:
        end = min(offset + CHUNK, size)
        while index < len(holes) and sum(holes[index]) <= offset:
            index += 1
        if index < len(holes) and holes[index][0] <= offset and sum(holes[index]) >= end:
            stop = sum(holes[index])
            offset = size if stop >= size else stop - stop % CHUNK  # in one step, however long the hole is
            continue
        yield offset, end - offset
        offset = end


def data_ranges(start: int, end: int, holes: Holes) -> t.Iterator[t.Tuple[int, int]]:
    """(offset, length) of the data between two offsets."""
    first = max(0, bisect_right(holes, (start, 0)) - 1)  # the last that begins at or before start, or the one behind
    for index in range(first, len(holes)):
        hole, length = holes[index]
        if hole + length <= start:
            continue
        if hole >= end:
            break
        if hole > start:
            yield start, hole - start
        start = hole + length
    if start < end:
        yield start, end - start


class ChunkList(t.NamedTuple):
    """A decoded chunk list; `digests` belong to `spans` in order, or to `lengths` where the chunks have different ones."""

    size: int
    holes: Holes
    digests: t.List[bytes]
    lengths: t.Sequence[int] = ()

    def chunks(self) -> t.Iterator[t.Tuple[int, int, bytes]]:
        """(offset, length, digest) of each chunk with data."""
        starts = zip(itertools.accumulate(self.lengths, initial=0), self.lengths) if self.lengths else spans(self.size, self.holes)
        for (offset, length), digest in zip(starts, self.digests):
            yield offset, length, digest


def encode(size: int, holes: Holes, digests: t.Iterable[bytes]) -> bytes:
    return b"".join((_HEADER.pack(magic.CHUNKS, size, len(holes)), *(_HOLE.pack(*hole) for hole in holes), *digests))


def encode_cuts(pieces: t.Sequence[t.Tuple[int, bytes]]) -> bytes:
    """The chunk list of a stream. :param pieces: length and digest of each chunk."""
    return _CUTS_HEADER.pack(magic.CUTS, sum(length for length, _digest in pieces)) + b"".join(_CUT.pack(*piece) for piece in pieces)


def decode(blob: bytes, size: int) -> ChunkList:
    """Read a chunk list of a file of `size` bytes; Damaged if it is not one."""
    if blob.startswith(magic.CUTS):
        return _decode_cuts(blob, size)
    try:
        magic.check(blob, magic.CHUNKS, "A list of chunks")
    except ValueError as error:
        raise Damaged(f"A chunk list is invalid: {error}.") from None
    if len(blob) < _HEADER.size:
        raise Damaged("A chunk list is truncated.")
    _first, said, count = _HEADER.unpack_from(blob)
    start = _HEADER.size + _HOLE.size * count
    if said != size or size >= 1 << 63 or start > len(blob):
        raise Damaged("A chunk list has an invalid header.")
    holes = tuple(t.cast("t.Iterable[t.Tuple[int, int]]", _HOLE.iter_unpack(blob[_HEADER.size : start])))
    check_holes(holes, size)
    # count before building: a wrong size must not cost memory
    whole = sum(max(0, _chunks_inside(offset, length, size)) for offset, length in holes)
    expected = -(-size // CHUNK) - whole
    if len(blob) - start != 32 * expected:
        raise Damaged("A chunk list does not match its file.")
    return ChunkList(size, holes, [blob[at : at + 32] for at in range(start, len(blob), 32)])


def _decode_cuts(blob: bytes, size: int) -> ChunkList:
    if len(blob) < _CUTS_HEADER.size or (len(blob) - _CUTS_HEADER.size) % _CUT.size:
        raise Damaged("A chunk list is truncated.")
    pieces = list(_CUT.iter_unpack(memoryview(blob)[_CUTS_HEADER.size :]))
    lengths = array("I", (length for length, _digest in pieces))
    said = _CUTS_HEADER.unpack_from(blob)[1]
    if said != size or sum(lengths) != size or not all(0 < length <= WHOLE_MOST for length in lengths):
        raise Damaged("A chunk list does not match its file.")
    return ChunkList(size, (), [digest for _length, digest in pieces], lengths)


def _chunks_inside(offset: int, length: int, size: int) -> int:
    first = -(-offset // CHUNK)
    end = offset + length
    last = -(-end // CHUNK) if end == size else end // CHUNK
    return last - first


def check_holes(holes: Holes, size: int) -> None:
    """Damaged unless holes ascend, do not touch, and are inside the file."""
    at = -1
    for offset, length in holes:
        if offset <= at or not length or offset + length > size:
            raise Damaged("A file's holes overlap or are outside the file.")
        at = offset + length
