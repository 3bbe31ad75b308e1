# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""From the leaves up: directories into trees, and into the next scan file.

Directories join a queue when they and all below them have been visited. The first one is finished as soon as its large files are hashed.
The queue keeps its order, so metadata is packed in the same order on every host, in whatever order workers finish.
"""

from __future__ import annotations

import operator
import typing as t
from array import array
from collections import deque

from .._format import chunks, tree
from .._store.transaction import Transaction
from .stat_cache import DirectoryFacts, DirectoryRecord, Stats, Writer
from .state import Directory, FutureEntry, Notes
from .stream import Streams

#: Entries that may wait for large files: bounds the memory.
_WAITING = 50_000
_NO_STREAMS = Streams()
_name = operator.attrgetter("name")


class TreeSaver:
    """Finishes directories in the given order. `stats` are the totals so far.

    :param streams: what the top of the tree has besides.
    """

    def __init__(self, run: Transaction, notes: Notes, writer: t.Optional[Writer], streams: Streams) -> None:
        self._run, self._notes, self._writer, self._streams = run, notes, writer, streams
        self._queue: t.Deque[Directory] = deque()
        self._waiting = 0
        self.stats = Stats()

    def add(self, here: Directory) -> None:
        here.items = []
        self._queue.append(here)
        self._waiting += len(here.slots)
        while self._queue and (self._waiting > _WAITING or _ready(self._queue[0])):
            self._next()

    def finish(self) -> None:
        while self._queue:
            self._next()

    def _next(self) -> None:
        here = self._queue.popleft()
        self._waiting -= len(here.slots)
        record = here.record
        if here.same and record is not None:
            self._settle_same(here, record)
        else:
            self._settle_new(here)
        here.names, here.slots, here.children, here.numbers = [], [], [], b""
        if record is not None:
            record.rest()

    def _settle_same(self, here: Directory, record: DirectoryRecord) -> None:
        """The directory's own names and stats are unchanged; what is below may differ."""
        facts = record.facts
        children = t.cast("t.List[Directory]", here.children)
        self._notes.uids.update(facts.uids)
        self._notes.gids.update(facts.gids)
        self.stats = self.stats + facts.stats
        here.digest = facts.tree
        if all(child.known is not None and child.known is child.record for child in children):
            here.known = record
            return
        if any(child.record is None or child.digest != child.record.facts.tree for child in children):
            digests = {here.names[position]: child.digest for position, child in zip(here.subdirectories, children)}
            entries = [
                entry._replace(content=digests[entry.name]) if entry.kind == tree.DIRECTORY and entry.name in digests else entry
                for entry in tree.load(self._run.store.read, facts.tree)
            ]
            here.digest = tree.store(self._run.add_metadata, entries)
        if self._writer is not None:
            here.known = self._writer.place(facts._replace(tree=here.digest), [child.known for child in children])

    def _settle_new(self, here: Directory) -> None:
        children = {position: child for position, child in zip(here.subdirectories, here.children) if child is not None}
        entries: t.List[tree.Entry] = []
        for position, slot in enumerate(here.slots):
            entry = slot.settle() if isinstance(slot, FutureEntry) else slot
            if entry is None:
                continue
            if entry.kind == tree.DIRECTORY:
                child = children.get(position)  # none: it was not entered, and stays empty
                entry = entry._replace(content=tree.store(self._run.add_metadata, []) if child is None else child.digest)
            entries.append(entry)
        streams = self._streams if here.parent is None else _NO_STREAMS
        here.digest = tree.store(self._run.add_metadata, sorted([*entries, *streams.entries], key=_name) if streams.entries else entries)
        stats, objects, chunked = self._summary(entries)
        self.stats = self.stats + stats + streams.stats
        self._notes.add_owners(streams.entries)
        uids, gids = self._notes.add_owners(entries)
        if self._writer is None:
            return
        facts = DirectoryFacts(
            tree=here.digest,
            stats=stats,
            names=b"\0".join([*here.names, *sorted(streams.names)]),  # more than any listing has: the next walk looks at each entry again
            numbers=self._writer.mark_racy(here.numbers, here.untrusted, here.suspect),
            subdirectories=array("I", here.subdirectories),
            linked=array("I", here.linked),
            objects=objects,
            chunked=chunked,
            uids=array("I", sorted(uids)),
            gids=array("I", sorted(gids)),
        )
        here.known = self._writer.place(facts, [child.known if child is not None else None for child in here.children])

    def _summary(self, entries: t.Sequence[tree.Entry]) -> t.Tuple[Stats, t.List[t.Tuple[bytes, int]], t.List[t.Tuple[bytes, int]]]:
        """Counts, and the blobs outside of packs, which must be checked one by one: objects and lists of chunks."""
        files = directories = symlinks = others = size = blobs = 0
        objects, chunked = [], []
        for entry in entries:
            kind = entry.kind
            if kind == tree.FILE:
                files += 1
                if entry.size:
                    blobs += 1
                    size += entry.size
                    if entry.size > chunks.PACKED_MOST:
                        objects.append((entry.content, entry.size))
            elif kind == tree.DIRECTORY:
                directories += 1
            elif kind == tree.SYMLINK:
                symlinks += 1
            elif kind == tree.CHUNKED:
                files += 1
                size += entry.size
                chunked.append((entry.content, entry.size))
                blobs += self._notes.chunk_counts[entry.content]
            else:
                others += 1
        return Stats(files, directories, symlinks, others, size, blobs), objects, chunked


def _ready(here: Directory) -> bool:
    return all(slot.done() for slot in here.slots if isinstance(slot, FutureEntry))
