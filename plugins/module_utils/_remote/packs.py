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

import secrets
import struct
import typing as t

from .._store import codec

CONTENT, METADATA, MIXED = 0, 1, 2
BLOBS, LOCAL_PACK = 0, 1
_FORMS = (codec.NONE, codec.ZLIB, codec.ZSTD)
_HEADER = struct.Struct("<8s16sIII")
_SEGMENT = struct.Struct("<IIBBHI")
_BLOB = struct.Struct("<32sI")
_MAGIC = b"VOLTRPK1"
#: A pack ends with the segment that reaches this, in stored bytes.
SIZE = 16 << 20
#: Blobs are grouped up to this, in plain bytes.
SEGMENT = 1 << 20


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


class Builder:
    """The segments of one pack, as they come. :param kind: CONTENT, METADATA or MIXED."""

    def __init__(self, kind: int) -> None:
        self.kind = kind
        self.size = 0
        self.segments: t.List[Segment] = []

    def add(self, segment: Segment) -> None:
        """Append a segment."""
        self.segments.append(segment)
        self.size += len(segment.stored)

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
