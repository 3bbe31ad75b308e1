# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""How much a restore will write: hard links once, holes not at all, and what shares its blocks with the store not at all."""

from __future__ import annotations

import contextlib
import struct
import typing as t

from .._base import Damaged
from .._format import chunks
from .._format.tree import CHUNKED, Entry
from .blobs import Blobs
from .supply import Uses

#: File systems give out space in blocks; this is the size of nearly all of them.
_BLOCK = 4096
#: A file that is no packed blob: how many of those were counted before it, its size, bytes of the blocks of its data, its content.
_LARGE = struct.Struct("=QQQ32s")


class Space:
    """Adds up what is to be written.

    :ivar uses: the packed blobs of all files, each as often as it is written.
    :param group_of: path -> number of its hard-link group.
    """

    def __init__(self, group_of: t.Mapping[bytes, int]) -> None:
        self._group_of = group_of
        self._groups: t.Set[int] = set()
        self._small = 0
        self._large = bytearray()  # there may be a million
        self._listed: t.Dict[int, t.Tuple[Entry, bytes]] = {}  # by number, those in chunks, with the chunks that are at hand
        self.uses = Uses()

    def add(self, path: bytes, entry: Entry, at_hand: bytes = b"") -> None:
        """Count a file that will be written. :param at_hand: which of its chunks are at the target, as of `Comparer.at_hand`."""
        if not entry.is_file or not entry.size:
            return
        group = self._group_of.get(path)
        if group is not None:
            if group in self._groups:
                return
            self._groups.add(group)
        if entry.size > chunks.PACKED_MOST:
            if entry.kind == CHUNKED:
                self._listed[len(self._large) // _LARGE.size] = entry, at_hand
            self._large += _LARGE.pack(len(self.uses), entry.size, _data(entry), entry.content)
        else:
            self.uses.expect(entry.content)
            self._small += _data(entry)

    def needed(self, store: Blobs, clones: bool, salvage: bool = False) -> int:
        """Bytes that will be written; Damaged where the list of a file's chunks is lost, so that this is known before anything is.

        :param clones: whether the target's files can share blocks with the store's. :param salvage: pass over files whose list is lost.
        """
        total = self._small
        for number, (_before, size, data, digest) in enumerate(_LARGE.iter_unpack(self._large)):
            if number not in self._listed:
                total += 0 if clones and store.is_plain(digest, size) else data
                continue
            try:
                holes, pieces = _pieces(store, self._listed[number][0])
            except Damaged:
                if not salvage:
                    raise
                continue
            for offset, length, piece in pieces:
                if not (clones and store.is_plain(piece, length)):
                    total += _blocks(sum(size for _start, size in chunks.data_ranges(offset, offset + length, holes)))
        return total

    def wanted(self, store: Blobs) -> t.Iterator[bytes]:
        """The blobs that will be read, in the order in which the files were counted, each at its first use."""
        done = 0
        for number, (before, _size, _data, digest) in enumerate(_LARGE.iter_unpack(self._large)):
            yield from map(self.uses.digest, range(done, before))
            done = before
            if number not in self._listed:
                yield digest
                continue
            entry, at_hand = self._listed[number]
            with contextlib.suppress(Damaged):  # without its list, it cannot be written either
                for place, (_offset, _length, piece) in enumerate(_pieces(store, entry)[1]):
                    if place >= len(at_hand) or not at_hand[place]:
                        yield piece
        yield from map(self.uses.digest, range(done, len(self.uses)))


def _pieces(store: Blobs, entry: Entry) -> t.Tuple[chunks.Holes, t.Iterable[t.Tuple[int, int, bytes]]]:
    """The holes of a file in chunks, and its blobs: offset, length, digest. Damaged where the list of them is lost."""
    found = chunks.decode(store.read(entry.content, chunks.LIST_LIMIT), entry.size)
    return found.holes, found.chunks()


def _data(entry: Entry) -> int:
    """Bytes of the blocks that a file takes without its holes."""
    return _blocks(entry.size - sum(length for _offset, length in entry.extra.holes))


def _blocks(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
