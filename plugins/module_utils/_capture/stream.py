# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Files of a backup that are not in its source: what a program writes, such as the dump of a database. They are read once, and never kept whole.

They become entries at the top of the backup's tree: beside a source, one directory, which a restore creates, and which is left out of the source. Without
a source, files.
"""

from __future__ import annotations

import hashlib
import os
import time
import typing as t

from .._base import Progress
from .._format import chunks, cuts, tree
from .._format.tree import CHUNKED, DIRECTORY, FILE, NOTHING, Entry
from .._store.features import CDC
from .._store.transaction import Transaction
from .stat_cache import Stats

#: Reads up to so many bytes; none at the end. Any error costs the backup.
Read = t.Callable[[int], bytes]


class Stream(t.NamedTuple):
    """A file to be. `path`: one name, or a directory and a name. `open`: begins to write it; its context ends with an error if it is not complete.

    `only_reads`: nothing else comes of it, so that a dry run may do it.
    """

    path: bytes
    open: t.Callable[[], t.ContextManager[Read]]
    only_reads: bool = True


class Streams:
    """The streams of one backup, read into a store by `save`; then `entries` are those of the top of its tree, and `stats` their totals.

    :ivar names: of `entries`. :ivar at: the path of the stream that is read. :ivar left_out: paths of streams that a dry run did not read.
    """

    def __init__(self, streams: t.Sequence[Stream] = ()) -> None:
        self._streams = streams
        self.names = frozenset(stream.path.split(b"/")[0] for stream in streams)
        self.entries: t.List[Entry] = []
        self.stats = Stats()
        self.at = b""
        self.left_out: t.List[bytes] = []

    def save(self, run: Transaction, progress: Progress, find: t.Callable[[bytes], t.Optional[Entry]], dry: bool = False) -> None:
        """Read all, one after the other. Whatever fails here leaves no backup.

        :param find: the entry at a path of the backup before: equal content keeps its time. :param dry: do only what changes nothing.
        """
        self.entries, self.stats = [], Stats()
        below: t.Dict[bytes, t.List[Entry]] = {}
        for stream in self._streams:
            self.at = stream.path
            directory, _slash, name = stream.path.rpartition(b"/")
            old = find(stream.path)
            if dry and not stream.only_reads:
                self.left_out.append(stream.path)
                entry = old
            else:
                with stream.open() as read:
                    entry = self._saved(run, name, read, progress)
                if old is not None and (old.kind, old.size, old.content) == (entry.kind, entry.size, entry.content):
                    entry = entry._replace(seconds=old.seconds)
            if entry is not None:
                (below.setdefault(directory, []) if directory else self.entries).append(entry)
            progress(1, 0)
        self.at = b""
        for name, entries in below.items():
            digest = tree.store(run.add_metadata, sorted(entries, key=lambda entry: entry.name))
            latest = max(entry.seconds for entry in entries)
            self.entries.append(Entry(name, DIRECTORY, 0o700, os.geteuid(), os.getegid(), latest, 0, 0, digest, NOTHING))
            self.stats = self.stats + Stats(directories=1)

    def _saved(self, run: Transaction, name: bytes, read: Read, progress: Progress) -> Entry:
        pieces: t.List[t.Tuple[int, bytes]] = []
        for piece in _pieces(read):
            digest = hashlib.sha256(piece).digest()
            if not pieces and len(piece) <= chunks.PACKED_MOST:  # the only one
                run.blobs.add(digest, piece)
            else:
                run.objects.save(digest, piece)
            pieces.append((len(piece), digest))
            progress(0, len(piece))
        size = sum(length for length, _digest in pieces)
        if len(pieces) > 1:
            run.require(CDC)
            kind, content = CHUNKED, run.add_metadata(chunks.encode_cuts(pieces))
        else:
            kind, content = FILE, pieces[0][1] if pieces else b""
        self.stats = self.stats + Stats(files=1, size=size, blobs=len(pieces))
        return Entry(name, kind, 0o600, os.geteuid(), os.getegid(), int(time.time()), 0, size, content, NOTHING)


def _pieces(read: Read) -> t.Iterator[bytes]:
    """The chunks of a stream. What does not fill two stays one: a small file is one blob."""
    data = bytearray()
    ended = False
    while not ended or data:
        while not ended and len(data) < cuts.MOST:
            more = read(cuts.MOST - len(data))
            ended = not more
            data += more
        length = cuts.first(data, len(data))
        if length:
            yield bytes(memoryview(data)[:length])
            del data[:length]
