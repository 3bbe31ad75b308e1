# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The pack format: segments of blobs behind a table that names them.

::

    8 bytes    "VOLTRPK1"
    16 bytes   random, so that a pack's name never comes back
    u32        segments
    u32        blobs
    u32        kind: 0 content, 1 metadata (trees, chunk lists, tables), 2 both
    segments x u32 stored length, u32 plain length, u8 form, u8 sort, u16 zero, u32 blobs
    blobs    x 32 bytes digest, u32 length; those of the first segment first
    ...        the segments as they are stored

Integers are little-endian. The form is 0 plain, 1 zlib, 2 zstd. The sort is 0 for blobs one behind the other, which includes an object of a local
store, and 1 for a pack of a local store, whose own table comes before its blobs. A segment is at most 1 MiB of plain bytes, or a single blob, or a
file of the local store. A range of an object is enough for one segment.
"""

from __future__ import annotations

import hashlib
import secrets
import struct
import typing as t

from .._base import Damaged, newer
from .._store import codec, pack

CONTENT, METADATA, MIXED = 0, 1, 2
BLOBS, LOCAL_PACK = 0, 1
_FORMS = (codec.NONE, codec.ZLIB, codec.ZSTD)
_HEADER = struct.Struct("<8s16sIII")
_SEGMENT = struct.Struct("<IIBBHI")
_BLOB = struct.Struct("<32sI")
_MAGIC, _OURS = b"VOLTRPK1", b"VOLTRPK"
#: A pack ends with the segment that reaches this, in stored bytes.
SIZE = 16 << 20
#: Blobs are grouped up to this, in plain bytes.
SEGMENT = 1 << 20
#: Bytes that have the whole table of most packs.
TABLE_GUESS = 64 << 10
_TABLE_MOST = 1 << 30


class Segment(t.NamedTuple):
    """A part of a pack that can be read alone."""

    #: As it is stored, and in which form (a suffix of `codec`).
    stored: bytes
    form: str
    #: Plain length.
    plain: int
    sort: int
    #: Digest and length of each blob, in the order in which they lie.
    blobs: t.Sequence[t.Tuple[bytes, int]]


class Place(t.NamedTuple):
    """Where a segment is in a pack."""

    offset: int
    length: int
    form: str
    plain: int
    sort: int
    blobs: t.List[t.Tuple[bytes, int]]


class Builder:
    """The segments of one pack, as they come. :param kind: CONTENT, METADATA or MIXED."""

    def __init__(self, kind: int) -> None:
        self.kind = kind
        self.size = 0
        self.segments: t.List[Segment] = []

    def add(self, segment: Segment) -> int:
        """Append a segment; its number."""
        self.segments.append(segment)
        self.size += len(segment.stored)
        return len(self.segments) - 1

    def finish(self) -> bytes:
        """The bytes of the pack."""
        blobs = [blob for segment in self.segments for blob in segment.blobs]
        parts = [_HEADER.pack(_MAGIC, secrets.token_bytes(16), len(self.segments), len(blobs), self.kind)]
        parts += [
            _SEGMENT.pack(len(segment.stored), segment.plain, _FORMS.index(segment.form), segment.sort, 0, len(segment.blobs)) for segment in self.segments
        ]
        parts += [_BLOB.pack(*blob) for blob in blobs]
        parts += [segment.stored for segment in self.segments]
        return b"".join(parts)


def table_size(data: bytes) -> int:
    """How many bytes a pack's table has, by its first bytes; Damaged where these are none of a pack, Unsupported where a newer version wrote them."""
    if len(data) < _HEADER.size:
        raise Damaged("A pack of the remote is shorter than its header.")
    magic, _random, segments, blobs, _kind = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise newer("A pack of the remote") if magic.startswith(_OURS) else Damaged("A pack of the remote has an invalid header.")
    size = _HEADER.size + _SEGMENT.size * segments + _BLOB.size * blobs
    if size > _TABLE_MOST:
        raise Damaged("A pack of the remote has a table that is too long.")
    return t.cast(int, size)


def parse(data: bytes) -> t.List[Place]:
    """The segments of a pack, by as many of its bytes as its table has at least."""
    start = table_size(data)
    if len(data) < start:
        raise Damaged("A pack of the remote is shorter than its table.")
    count = _HEADER.unpack_from(data)[2]
    blobs = _BLOB.iter_unpack(data[_HEADER.size + _SEGMENT.size * count : start])
    places = []
    for stored, plain, form, sort, zero, number in _SEGMENT.iter_unpack(data[_HEADER.size : _HEADER.size + _SEGMENT.size * count]):
        if zero or form >= len(_FORMS) or sort not in (BLOBS, LOCAL_PACK):
            raise newer("A pack of the remote")
        try:
            own = [next(blobs) for _blob in range(number)]
        except StopIteration:
            raise Damaged("A pack of the remote has a table that does not match its segments.") from None
        first = pack.table_size(number) if sort == LOCAL_PACK else 0
        if first + sum(length for _digest, length in own) != plain:
            raise Damaged("A pack of the remote has a segment that does not match its blobs.")
        places.append(Place(start, stored, _FORMS[form], plain, sort, own))
        start += stored
    return places


def blobs_of(place: Place, stored: bytes) -> t.Iterator[t.Tuple[bytes, bytes]]:
    """Digest and bytes of each blob of a segment, each hashed; Damaged where one is not what the table says."""
    plain = codec.decompress(stored, place.form, place.plain)
    offset = pack.table_size(len(place.blobs)) if place.sort == LOCAL_PACK else 0
    for digest, length in place.blobs:
        blob = plain[offset : offset + length]
        if hashlib.sha256(blob).digest() != digest:
            raise Damaged(f"Blob {digest.hex()} is altered on the remote.")
        yield digest, blob
        offset += length
