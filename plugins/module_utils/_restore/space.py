# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""How much a restore will write: hard links once, holes not at all, and what shares its blocks with the store not at all."""

from __future__ import annotations

import typing as t

from .._base import Damaged
from .._format import chunks
from .._format.tree import CHUNKED, Entry
from .blobs import Blobs
from .supply import Uses

#: File systems give out space in blocks; this is the size of nearly all of them.
_BLOCK = 4096


class Space:
    """Adds up what is to be written.

    :ivar uses: the packed blobs of all files, each as often as it is written.
    :param group_of: path -> number of its hard-link group.
    """

    def __init__(self, group_of: t.Mapping[bytes, int]) -> None:
        self._group_of = group_of
        self._groups: t.Set[int] = set()
        self._small = 0
        # each with how many packed blobs were counted before it, and the chunks that are at hand
        self._large: t.List[t.Tuple[int, Entry, bytes]] = []
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
            self._large.append((len(self.uses), entry, at_hand))
        else:
            self.uses.expect(entry.content)
            self._small += _blocks(entry.size - sum(length for _offset, length in entry.extra.holes))

    def needed(self, store: Blobs, clones: bool) -> int:
        """Bytes that will be written. :param clones: whether the target's files can share blocks with the store's."""
        total = self._small
        for _before, entry, _at_hand in self._large:
            holes, pieces = _pieces(store, entry)
            for offset, length, digest in pieces:
                if not (clones and store.is_plain(digest, length)):
                    total += _blocks(sum(size for _start, size in chunks.data_ranges(offset, offset + length, holes)))
        return total

    def wanted(self, store: Blobs) -> t.Iterator[bytes]:
        """The blobs that will be read, in the order in which the files were counted, each at its first use."""
        done = 0
        for before, entry, at_hand in self._large:
            yield from map(self.uses.digest, range(done, before))
            done = before
            for number, (_offset, _length, digest) in enumerate(_pieces(store, entry)[1]):
                if number >= len(at_hand) or not at_hand[number]:
                    yield digest
        yield from map(self.uses.digest, range(done, len(self.uses)))


def _pieces(store: Blobs, entry: Entry) -> t.Tuple[chunks.Holes, t.Iterable[t.Tuple[int, int, bytes]]]:
    """The holes of a large file, and its blobs: offset, length, digest. None where the list of them is lost: it cannot be written either."""
    if entry.kind != CHUNKED:
        return entry.extra.holes, [(0, entry.size, entry.content)]
    try:
        found = chunks.decode(store.read(entry.content, chunks.LIST_LIMIT), entry.size)
    except Damaged:
        return (), ()
    return found.holes, found.chunks()


def _blocks(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
