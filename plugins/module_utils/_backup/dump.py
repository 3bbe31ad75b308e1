# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The content of one file of a backup, piece by piece. Each piece is hashed before it is given, so no wrong byte gets out."""

from __future__ import annotations

import typing as t

from .._base import Damaged, UsageError, show
from .._format import chunks
from .._format.tree import CHUNKED, DIRECTORY, SYMLINK, Entry
from .._restore.blobs import Blobs, exactly
from .listing import Place, kind
from .origin import Origin

_ZEROS = bytes(1 << 20)


def check(place: Place) -> None:
    """UsageError for what is no file."""
    shown, entry = show(place.path) or "The source", place.entry
    if entry.kind == DIRECTORY:
        raise UsageError(f"{shown} is a directory; give the path of a file.")
    if entry.kind == SYMLINK:
        raise UsageError(f"{shown} is a symbolic link to {show(entry.extra.target)}; give the path of the file itself.")
    if not entry.is_file:
        raise UsageError(f"{shown} is a {kind(entry)}, which has no content; give the path of a file.")


def copy(origin: Origin, place: Place, write: t.Callable[[bytes], bool]) -> None:
    """Give a file to `write`, which tells whether more is wanted. Damaged where the rest cannot be had as it was backed up; `details` has `written`."""
    check(place)
    written = 0
    try:
        with origin.supplying(digests(origin.blobs, place.entry), 0):
            for piece in pieces(origin.blobs, place.entry):
                if not write(piece):
                    return
                written += len(piece)
    except Damaged as error:
        raise Damaged(
            f"{show(place.path)} in backup {origin.sidecar['id']} is damaged after {written} of {place.entry.size} bytes: {error.message} Use the file of"
            " another backup; its history lists them.",
            path=show(place.path), written=written,
        ) from None  # fmt: skip


def digests(blobs: Blobs, entry: Entry) -> t.List[bytes]:
    """The blobs with the content of a file, in order."""
    if not entry.size:
        return []
    return _chunk_list(blobs, entry).digests if entry.kind == CHUNKED else [entry.content]


def pieces(blobs: Blobs, entry: Entry) -> t.Iterator[bytes]:
    """The content of a file, holes as zeros; Damaged where it cannot be had as it was backed up."""
    at = 0
    for offset, data in spans(blobs, entry):
        yield from _zeros(offset - at)
        yield data
        at = offset + len(data)
    yield from _zeros(entry.size - at)


def spans(blobs: Blobs, entry: Entry) -> t.Iterator[t.Tuple[int, bytes]]:
    """(offset, bytes) of the content of a file, without what lies between chunks."""
    if entry.kind == CHUNKED:
        for offset, length, digest in _chunk_list(blobs, entry).chunks():
            yield offset, exactly(blobs.read_object_first, digest, length)
    elif entry.size:
        yield 0, exactly(blobs.read if entry.size <= chunks.PACKED_MOST else blobs.read_object_first, entry.content, entry.size)


def holes(blobs: Blobs, entry: Entry) -> chunks.Holes:
    """The holes of a file."""
    return _chunk_list(blobs, entry).holes if entry.kind == CHUNKED else entry.extra.holes


def _chunk_list(blobs: Blobs, entry: Entry) -> chunks.ChunkList:
    return chunks.decode(blobs.read(entry.content, chunks.LIST_LIMIT), entry.size)


def _zeros(length: int) -> t.Iterator[bytes]:
    while length > 0:
        yield _ZEROS[:length]
        length -= len(_ZEROS)
