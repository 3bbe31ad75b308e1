# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Where the blobs are that a commit needs: which pack has each, and in which segment.

For a whole backup, all lists of its indexes are read. For a part of one, only what is asked for: the samples of an index are sorted, so a few of them at
the place where an id must be tell which pack has it, and the head of that pack tells the segment. Where an index is missing or altered, the heads of all
packs are read.
"""

from __future__ import annotations

import contextlib
import math
import typing as t

from .._base import Damaged, Unsupported
from . import indexes, known, names, packs
from .keys import Keys
from .memory import Blobs
from .transport import Transport

#: What is read of an index at first. A smaller one is read as a whole.
_FIRST = 256 << 10
#: A pack that is not larger is read as a whole in any case, and has its own list.
_SMALL = 72 << 10
#: So many samples around the place where one is expected, times the square root of all.
_AROUND = 4
#: With more indexes, they are listed to begin with the largest.
_FEW = 3
#: How often a place is corrected. Ids are spread evenly, so once is enough as a rule.
_TURNS = 8


class Places:
    """Find blobs by their ids.

    :param named: names and digests of indexes. :param needs: as in a commit; None: whatever pack has a blob will do.
    :param everything: all that is needed will be asked for. :param head: reads the head of a pack that has about so many blobs.
    :param fetches: and all that is needed will be fetched, so that small packs may be at once.
    :ivar there: the packs that the remote has, with their sizes, and `missing`: those that it should have and has not, or that are too short to be what
        they should. Of a part of a backup, both are only known of packs that `lacks` was asked for.
    :ivar faulty: the indexes that are missing or altered, and what is wrong with each. :ivar troubles: that alone.
    """

    def __init__(
        self, transport: Transport, keys: Keys, named: t.Sequence[t.Tuple[str, str]], needs: t.Optional[t.Mapping[names.Push, t.Set[int]]], everything: bool,
        head: t.Callable[[names.Pack, int], packs.Contents], fetches: bool = False,
    ) -> None:  # fmt: skip
        self._transport, self._keys, self._named, self._needs, self._head = transport, keys, named, needs, head
        self._blobs = Blobs()
        self._counts: t.Dict[names.Pack, int] = {}
        self._indexes: t.List[_Index] = []
        self._sorted, self._fetches, self._all = False, fetches, everything
        self._seen: t.Set[names.Pack] = set()  # packs whose heads were read
        self._listed: t.Set[str] = set()  # hosts and pushes whose packs were listed
        self._bad: t.Set[names.Pack] = set()
        self._second = Blobs()  # without these
        self.there: t.Dict[names.Pack, int] = {}
        self.missing: t.Set[names.Pack] = set()
        self.faulty: t.Dict[str, str] = {}
        self.troubles: t.List[str] = []
        if everything:
            self._read_all(True)
        else:
            self._indexes = [_Index(transport, keys, name) for name, _digest in reversed(named)]

    def find(self, blob: bytes) -> t.Optional[t.Tuple[names.Pack, int]]:
        """The pack that has a blob, and the number of the segment; None where the backup does not need it, or no list has it."""
        found = self._blobs.place(blob)
        if found is not None or not self._indexes:
            return found
        with contextlib.suppress(Damaged, Unsupported):  # what is altered may look like a newer version's
            for number in range(len(self._indexes)):
                if number == 1 and len(self._indexes) > _FEW:
                    self._sort()
                index = self._indexes[number]
                for pack, body, count in index.packs_with(blob, self._is_left):
                    self._learn(pack, body if body is not None else self._listed_in(pack, count))
                found = self._blobs.place(blob)
                if found is not None:
                    return found
        self.doubt()  # before a blob counts as lost, all is read, and compared with its digest
        return self._blobs.place(blob)

    def _sort(self) -> None:
        """Behind the newest index, put the largest first: it has most of the blobs. One request, once."""
        if self._sorted:
            return
        self._sorted = True
        sizes = {entry.name: entry.size for host in {_host(index.name) for index in self._indexes} for entry in self._transport.list(f"{names.INDEXES}{host}/")}
        self._indexes[1:] = sorted(self._indexes[1:], key=lambda index: -sizes.get(index.name, 0))

    def doubt(self) -> bool:
        """Believe nothing that was read of parts of indexes, but read them as a whole; False if that was done already."""
        if not self._indexes:
            return False
        self._blobs, self._counts = Blobs(), {}
        self._read_all(False)
        return True

    def another(self, blob: bytes, bad: t.Set[names.Pack]) -> t.Optional[t.Tuple[names.Pack, int]]:
        """A place of a blob in another pack than these, and than those that were bad before. All lists are read again where there are new ones."""
        if not bad <= self._bad:
            self._bad.update(bad)
            self._second = Blobs()
            for name, digest in self._named:
                with contextlib.suppress(Damaged):
                    data = known.index_bytes(self._transport, name, digest)
                    for pack, body in known.lists_of(data, self._keys, lambda pack: pack not in self._bad and pack not in self.missing):
                        self._second.add(pack, body)
        return self._second.place(blob)

    def lacks(self, pack: names.Pack) -> bool:
        """Whether the remote lacks a pack, or has less than all of it. Of a part of a backup, that is one request for each push, unless its head was read."""
        if self._all or pack in self._seen or pack in self.missing:
            return pack in self.missing
        if str(pack.push) not in self._listed:
            self._listed.add(str(pack.push))
            self.there.update(self._packs_of(str(pack.push)))
        if self.there.get(pack, 0) < packs.least(self._counts[pack]):
            self.missing.add(pack)
        return pack in self.missing

    def count(self, pack: names.Pack) -> int:
        """How many blobs a pack has that was found."""
        return self._counts[pack]

    # ---- inside

    def _is_left(self, pack: names.Pack) -> bool:
        """Whether the backup needs a pack, and its list was not read."""
        return pack not in self._counts and (self._needs is None or pack.number in self._needs.get(pack.push, ()))

    def _learn(self, pack: names.Pack, body: bytes, look: bool = False) -> None:
        if self._is_left(pack):
            if look and str(pack.push) not in self._listed and pack.push.host not in self._listed:
                self._listed.add(str(pack.push))  # of another host
                self.there.update(self._packs_of(str(pack.push)))
            count = self._counts[pack] = len(body) // indexes.LINE.size
            lost = look and self.there.get(pack, 0) < packs.least(count)
            if lost:
                self.missing.add(pack)
            self._blobs.add(pack, body, over=not lost)  # of two packs with a blob, one that is there

    def _read_all(self, look: bool) -> None:
        """Read all lists. :param look: list which packs are there."""
        self._indexes = []
        if look:
            self._listed = self._areas()
            self.there = {pack: size for area in self._listed for pack, size in self._packs_of(area)}
        left = self._unlisted() if look else None
        # first those of the pushes whose packs are needed: what others have, was folded into them later
        for name, digest in sorted(self._named, key=lambda item: _push(item[0]) not in left) if left is not None else self._named:
            if left is not None and not any(left.values()):
                break  # all that is needed is known
            try:
                lists = known.lists_of(known.index_bytes(self._transport, name, digest), self._keys, self._is_left)
            except Damaged as error:
                self.faulty[name] = error.message
                self.troubles.append(error.message)
                continue
            for pack, body in lists:
                self._learn(pack, body, look)
                if left is not None:
                    left.get(pack.push, set()).discard(pack.number)
        if look or self.troubles:
            there = self.there if look else dict(pair for area in self._areas() for pair in self._packs_of(area))
            for pack in sorted(filter(self._is_left, there)):
                with contextlib.suppress(Damaged):
                    self._learn(pack, self._listed_in(pack, 0))

    def _unlisted(self) -> t.Optional[t.Dict[names.Push, t.Set[int]]]:
        """What the backup needs beside small packs, whose own lists are learned here; None where that is not known, or would take more requests."""
        if self._needs is None or not self._fetches:
            return None
        small = sorted(pack for pack, size in self.there.items() if size <= _SMALL and self._is_left(pack))
        if len(small) > len(self._named):
            return None
        left = {push: set(numbers) for push, numbers in self._needs.items()}
        for pack in small:
            with contextlib.suppress(Damaged):
                self._learn(pack, self._listed_in(pack, 0), True)
                left[pack.push].discard(pack.number)
        return left

    def _areas(self) -> t.Set[str]:
        """Where the packs are: all of the hosts that wrote the indexes, and of other hosts those pushes that the backup needs."""
        hosts = {found[0].host for found in (names.parse_index(name) for name, _digest in self._named) if found is not None}
        return hosts.union(str(push) for push in self._needs or () if push.host not in hosts)

    def _packs_of(self, above: str) -> t.Iterator[t.Tuple[names.Pack, int]]:
        """The packs of a host or a push that are there, with their sizes."""
        for entry in self._transport.list(f"{names.PACKS}{above}/"):
            pack = names.parse_pack(entry.name)
            if pack is not None:
                yield pack, entry.size

    def _listed_in(self, pack: names.Pack, count: int) -> bytes:
        """The list of a pack's blobs, by its own head; Damaged where it cannot be read. :param count: how many there are, about."""
        lines = self._head(pack, count).blobs()
        self._seen.add(pack)
        return b"".join(indexes.LINE.pack(segment, self._keys.blob_id(digest), length) for segment, digest, length in lines)


def _push(index: str) -> t.Optional[names.Push]:
    """The push of an index's name."""
    found = names.parse_index(index)
    return found[0] if found is not None else None


def _host(index: str) -> str:
    """The host of an index's name."""
    return index[len(names.INDEXES) :].partition("/")[0]


class _Index:
    """An index of which only parts are read."""

    def __init__(self, transport: Transport, keys: Keys, name: str) -> None:
        self._transport, self._keys, self.name = transport, keys, name
        self._head: t.Optional[indexes.Head] = None
        self._windows: t.List[t.List[t.Tuple[bytes, int]]] = []  # samples, ascending
        self._lists: t.Dict[int, bytes] = {}  # those that were read, by the position of the pack

    def packs_with(self, blob: bytes, wanted: t.Callable[[names.Pack], bool]) -> t.List[t.Tuple[names.Pack, t.Optional[bytes], int]]:
        """The packs that have a blob and are wanted, each with its list if that was read, and about how many blobs it has. Of a small index: all packs.

        Damaged where the index is missing or is none.
        """
        head = self._head or self._read_head()
        if self._lists or head.sample_bits != 0:
            chosen = [(place, self._list(position, place)) for position, place in enumerate(head.packs) if wanted(place.pack)]
            return [(place.pack, body, 0) for place, body in chosen]
        positions = {position for sample, position in self._around(head, blob) if sample == blob and position < len(head.packs)}
        places = [head.packs[position] for position in sorted(positions)]
        return [(place.pack, None, place.length // indexes.LINE.size) for place in places if wanted(place.pack)]

    def _read_head(self) -> indexes.Head:
        first = self._get(0, _FIRST)
        size = indexes.head_size(first)
        if size > len(first):
            first += self._get(len(first), size - len(first))
        head = self._head = indexes.parse_head(first)
        if len(first) < _FIRST:
            for position, place in enumerate(head.packs):
                self._lists[position] = indexes.check(self._keys.open_list(first[place.offset : place.offset + place.length]))
        count = min(head.samples, max(len(first) - head.first_sample, 0) // indexes.SAMPLE_SIZE)
        self._windows += [indexes.samples(first[head.first_sample : head.first_sample + count * indexes.SAMPLE_SIZE])] if count else []
        return head

    def _around(self, head: indexes.Head, blob: bytes) -> t.List[t.Tuple[bytes, int]]:
        """The samples around the place where the sample of a blob must be."""
        for window in self._windows:
            if window[0][0] < blob < window[-1][0] or len(window) == head.samples:
                return window
        width = _AROUND * math.isqrt(head.samples) + 64
        place = int.from_bytes(blob[:8], "big") * head.samples >> 64
        samples: t.List[t.Tuple[bytes, int]] = []
        for _turn in range(_TURNS):
            start = min(max(place - width // 2, 0), max(head.samples - width, 0))
            count = min(width, head.samples - start)
            samples = indexes.samples(self._get(head.first_sample + start * indexes.SAMPLE_SIZE, count * indexes.SAMPLE_SIZE))
            self._windows += [samples] if samples else []
            if samples and blob < samples[0][0] and start:
                place -= width
            elif samples and blob > samples[-1][0] and start + len(samples) < head.samples:
                place += width
            else:
                return samples
        raise Damaged(f"{self._transport.where}: the samples of {self.name} are not sorted.")

    def _list(self, position: int, place: indexes.Place) -> bytes:
        if position not in self._lists:
            self._lists[position] = indexes.check(self._keys.open_list(self._get(place.offset, place.length)))
        return self._lists[position]

    def _get(self, start: int, length: int) -> bytes:
        data = self._transport.get(self.name, start, length)
        if data is None:
            raise Damaged(f"{self._transport.where}: {self.name} is missing.")
        return data
