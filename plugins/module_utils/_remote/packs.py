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
file of the local store, and has a blob. A range of an object is enough for one segment.
"""

from __future__ import annotations

import secrets
import struct
import typing as t

from .._base import Damaged, newer
from .._format import links
from .._store import codec, pack

CONTENT, METADATA, MIXED = 0, 1, 2
BLOBS, LOCAL_PACK = 0, 1
_FORMS = (codec.NONE, codec.ZLIB, codec.ZSTD)
_HEADER = struct.Struct("<8s16sIII")
_SEGMENT = struct.Struct("<IIBBHI")
_BLOB = struct.Struct("<32sI")
#: Segments that a pack has, as a rule at most: local packs have a MiB before they are compressed.
_SEGMENTS = 64
#: How many bytes `head_size` needs.
HEADER = _HEADER.size
_MAGIC, _OURS = b"VOLTRPK1", b"VOLTRPK"
#: A pack ends with the segment that reaches this, in stored bytes; or in blobs, since one of them is found by the head, which names all.
SIZE, MOST_BLOBS = 16 << 20, 16 << 10
#: Blobs are grouped up to this, in plain bytes.
SEGMENT = 1 << 20
#: A blob alone in a segment has at most so many plain bytes: the longest table of hard links.
ONE_MOST = links.LIMIT


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


def likely_head(blobs: int) -> int:
    """How long the head of a pack with so many blobs is, as a rule at most."""
    return _HEADER.size + _SEGMENT.size * _SEGMENTS + _BLOB.size * blobs


def least(blobs: int) -> int:
    """How long a pack with so many blobs is, at least; a sealed one is longer."""
    return _HEADER.size + _SEGMENT.size + _BLOB.size * blobs


def head_size(start: bytes) -> int:
    """How long everything before the segments is. :param start: the first 36 bytes of a pack; Damaged where these are none."""
    if len(start) < _HEADER.size:
        raise Damaged("A pack of the remote is shorter than its header.")
    magic, _random, segments, blobs, kind = _HEADER.unpack_from(start)
    if magic != _MAGIC or kind not in (CONTENT, METADATA, MIXED):
        raise newer("A pack of the remote") if magic.startswith(_OURS) else Damaged("A pack of the remote has an invalid header.")
    if segments > min(blobs, 2 * MOST_BLOBS):  # content and metadata in one pack have fewer each
        raise Damaged("A pack of the remote has more segments than any can have.")
    return t.cast(int, _HEADER.size + _SEGMENT.size * segments + _BLOB.size * blobs)


class Contents:
    """Where everything in a pack is, by its head. Damaged where that cannot be.

    :ivar size: of the head. :ivar end: of the pack. :ivar segments: how many there are.
    """

    def __init__(self, data: bytes) -> None:
        self.size = head_size(data)
        if self.size > len(data):
            raise Damaged("A pack of the remote is shorter than its head.")
        _magic, _random, segments, blobs, _kind = _HEADER.unpack_from(data)
        first = _HEADER.size + _SEGMENT.size * segments
        self._blobs = data[first : self.size]
        self._segments: t.List[t.Tuple[int, int, int, int, int, int, int]] = []
        offset, before = self.size, 0
        for stored, plain, form, sort, _zero, count in _SEGMENT.iter_unpack(data[_HEADER.size : first]):
            if form >= len(_FORMS) or sort not in (BLOBS, LOCAL_PACK):
                raise newer("A pack of the remote")
            self._segments.append((offset, stored, plain, form, sort, before, count))
            offset, before = offset + stored, before + count
        self.end, self.segments = offset, segments
        if before != blobs:
            raise Damaged("A pack of the remote has a table that does not match its segments.")

    def blobs(self) -> t.Iterator[t.Tuple[int, bytes, int]]:
        """Segment, digest and length of each blob."""
        numbers = (number for number, segment in enumerate(self._segments) for _blob in range(segment[-1]))
        for number, (digest, length) in zip(numbers, _BLOB.iter_unpack(self._blobs)):
            yield number, digest, length

    def place(self, segment: int) -> t.Tuple[int, int]:
        """Where a segment starts and ends; Damaged where there is none."""
        if segment >= len(self._segments):
            raise Damaged("A pack of the remote lacks a segment that its index names.")
        offset, stored = self._segments[segment][:2]
        return offset, offset + stored

    def length(self, segment: int) -> int:
        """How many plain bytes a segment says that it has."""
        return self._segments[segment][2]

    def open(self, segment: int, stored: bytes, limit: int) -> t.Tuple[bytes, t.Iterator[t.Tuple[bytes, int, int]]]:
        """The plain bytes of a segment, and where its blobs are in them: digest, offset, length. None of these is hashed.

        :param limit: of a blob that is wanted: a segment with more bytes, that is no pack of a local store either, is Damaged.
        """
        _offset, _stored, size, form, sort, before, count = self._segments[segment]
        if size > max(limit, pack.PACK_MOST):
            raise Damaged("A pack of the remote has a segment that is larger than expected.")
        plain = codec.decompress(stored, _FORMS[form], size)
        return plain, self._lines(before, count, pack.table_size(count) if sort == LOCAL_PACK else 0)

    def check(self) -> None:
        """Damaged unless a push could have written this head. Readers only need of it what they want, and judge the rest differently."""
        lines = list(_BLOB.iter_unpack(self._blobs))
        if len({digest for digest, _length in lines}) < len(lines):
            raise Damaged("A pack of the remote names a blob twice.")
        for _offset, _stored, plain, _form, sort, before, count in self._segments:
            size = sum(length for _digest, length in lines[before : before + count]) + (pack.table_size(count) if sort == LOCAL_PACK else 0)
            most = pack.PACK_MOST if sort == LOCAL_PACK else SEGMENT if count > 1 else ONE_MOST
            if plain != size or not count or plain > most:
                raise Damaged("A pack of the remote has a segment of a length that no push writes.")

    def open_all(self, segment: int, stored: bytes) -> t.Tuple[bytes, t.Iterator[t.Tuple[bytes, int, int]]]:
        """As `open`, and Damaged where it has more or fewer bytes than `check` found, or some hosts could not decompress it."""
        plain, lines = self.open(segment, stored, ONE_MOST)
        size, form = self._segments[segment][2:4]
        if len(plain) != size or _FORMS[form] == codec.ZSTD and not codec.is_one_frame(stored, size):
            raise Damaged("A pack of the remote has a segment that no push writes.")
        return plain, lines

    def _lines(self, before: int, count: int, offset: int) -> t.Iterator[t.Tuple[bytes, int, int]]:
        for digest, length in _BLOB.iter_unpack(self._blobs[_BLOB.size * before : _BLOB.size * (before + count)]):
            yield digest, offset, length
            offset += length


class Builder:
    """The segments of one pack, as they come. :param kind: CONTENT, METADATA or MIXED."""

    def __init__(self, kind: int) -> None:
        self.kind = kind
        self.size = self._blobs = 0
        self.segments: t.List[Segment] = []

    def add(self, segment: Segment) -> None:
        """Append a segment."""
        self.segments.append(segment)
        self.size += len(segment.stored)
        self._blobs += len(segment.blobs)

    @property
    def is_full(self) -> bool:
        """Whether the next segment goes into another pack."""
        return self.size >= SIZE or self._blobs >= MOST_BLOBS

    def finish(self) -> bytes:
        """The bytes of the pack. Its segments have theirs no more."""
        blobs = [blob for segment in self.segments for blob in segment.blobs]
        parts = [_HEADER.pack(_MAGIC, secrets.token_bytes(16), len(self.segments), len(blobs), self.kind)]
        parts += [
            _SEGMENT.pack(len(segment.stored), segment.plain, _FORMS.index(segment.form), segment.sort, 0, len(segment.blobs)) for segment in self.segments
        ]
        parts += [_BLOB.pack(*blob) for blob in blobs]
        parts += [segment.stored for segment in self.segments]
        self.segments = [segment._replace(stored=b"") for segment in self.segments]
        return b"".join(parts)
