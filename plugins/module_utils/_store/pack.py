# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The pack format: small blobs behind a table that names them.

::

    8 bytes   "VOLTPAK1"
    u32       kind: 0 file content, 1 metadata (trees, chunk lists, tables)
    u32       count
    count x   32 bytes digest, u32 length
    ...       the blobs, in the order of the table

Integers are little-endian. A pack is named by the SHA-256 of all of this, so its name vouches for its table, and a lost index
costs nothing but time. Where a pack ends is decided by the content alone (see `Builder.add`), so the same blobs in
the same order make the same packs on every host.
"""

from __future__ import annotations

import hashlib
import struct
import typing as t

from .._base import Damaged, newer

CONTENT, METADATA = 0, 1

HEADER = struct.Struct("<8sII")
ENTRY = struct.Struct("<32sI")
_MAGIC, _OURS = b"VOLTPAK1", b"VOLTPAK"

_LEAST = 256 << 10
#: Bytes after which a pack ends on average, once it has the least; by kind. Of metadata one blob is wanted at a time, and its whole pack is read.
_FURTHER = (1 << 20, 128 << 10)
_MOST = 8 << 20
#: The largest blob that may go into a pack; anything larger is an object.
BLOB_MOST = 8 << 20
#: No sound pack is larger: the last blob may start just below `_MOST`.
PACK_MOST = _MOST + BLOB_MOST + HEADER.size + ENTRY.size


class Builder:
    """The open pack of one kind. Not thread-safe: the order of blobs is the point."""

    def __init__(self, kind: int) -> None:
        self.kind = kind
        self._digests: t.List[bytes] = []
        self._blobs: t.List[bytes] = []
        self._payload = 0
        self._size = 0

    def add(self, digest: bytes, blob: bytes) -> t.Tuple[int, bool]:
        """Append a blob: (its offset behind the table, whether the pack ends here).

        A blob takes its bytes and its line in the table; that sum is its size. With 256 KiB in the pack, a blob whose digest's
        first 8 bytes (big-endian) are below size x 2^64 / further ends it; at 8 MiB it ends in any case. Large blobs thus end packs more
        often, and the mean is about 1.25 MiB of content and 384 KiB of metadata whatever the sizes.
        """
        offset = self._payload
        self._digests.append(digest)
        self._blobs.append(blob)
        length = len(blob)
        self._payload = offset + length
        size = length + ENTRY.size
        self._size += size
        ends = self._size >= _LEAST and (
            self._size >= _MOST or int.from_bytes(digest[:8], "big") < (size << 64) // _FURTHER[self.kind]
        )
        return offset, ends

    def take(self) -> t.List[bytes]:
        """The pieces of the finished pack, to be joined by a worker; the builder starts anew."""
        pieces = [HEADER.pack(_MAGIC, self.kind, len(self._digests))]
        pieces += [ENTRY.pack(digest, len(blob)) for digest, blob in zip(self._digests, self._blobs)]
        pieces += self._blobs
        self._digests, self._blobs, self._payload, self._size = [], [], 0, 0
        return pieces

    def __bool__(self) -> bool:
        return bool(self._digests)


def table_size(count: int) -> int:
    """Where the first blob starts in a pack of `count` blobs."""
    return HEADER.size + ENTRY.size * count


def first_blob(data: bytes) -> int:
    """Where the first blob of this pack starts; Damaged where that cannot be."""
    if len(data) < HEADER.size:
        raise Damaged("A pack is shorter than its header.")
    magic, kind, count = HEADER.unpack_from(data)
    if magic != _MAGIC or kind not in (CONTENT, METADATA) or table_size(count) > len(data):
        raise Damaged("A pack has an invalid header.")
    return table_size(count)


def kind(data: bytes) -> int:
    """CONTENT or METADATA; Damaged where these are not the bytes of a pack."""
    first_blob(data)
    return t.cast(int, HEADER.unpack_from(data)[1])


def parse(data: bytes, name: bytes) -> t.List[t.Tuple[bytes, int, int]]:
    """What a pack holds: (digest, offset behind the table, length); Damaged unless its bytes are those it is named by, Unsupported where these
    were written by a newer version."""
    if hashlib.sha256(data).digest() != name:
        raise Damaged(f"Pack {name.hex()} is altered.")
    if _is_newer(data):
        raise newer(f"Pack {name.hex()}")
    start = first_blob(data)
    entries, offset = [], 0
    for digest, length in ENTRY.iter_unpack(data[HEADER.size : start]):
        entries.append((digest, offset, length))
        offset += length
    if start + offset != len(data):
        raise Damaged(f"Pack {name.hex()} has a table that does not match its blobs.")
    return entries


def _is_newer(data: bytes) -> bool:
    """Whether bytes that were written so are a pack of a kind that only a newer version knows."""
    if len(data) < HEADER.size or data[: len(_OURS)] != _OURS:
        return False
    magic, kind, _count = HEADER.unpack_from(data)
    return magic != _MAGIC or kind not in (CONTENT, METADATA)


def check(data: bytes, name: bytes) -> t.List[t.Tuple[bytes, int, int]]:
    """What `parse` tells; Damaged unless each blob is what the table says, too."""
    entries = parse(data, name)
    start = first_blob(data)
    for digest, offset, length in entries:
        if hashlib.sha256(data[start + offset : start + offset + length]).digest() != digest:
            raise Damaged(f"Pack {name.hex()} has a blob that does not match its table.")
    return entries


def salvage(data: bytes) -> t.Iterator[t.Tuple[bytes, int, int]]:
    """What a damaged pack may still hold: (digest, offset in the pack, length), each to be hashed before it is believed."""
    try:
        start = offset = first_blob(data)
    except Damaged:
        return
    for digest, length in ENTRY.iter_unpack(data[HEADER.size : start]):
        if offset + length > len(data):
            return
        yield digest, offset, length
        offset += length
