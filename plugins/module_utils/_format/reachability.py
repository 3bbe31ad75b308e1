# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""All blobs that can be reached from the roots of backups; each shared tree is visited once.

One walk answers three questions: does everything exist (list, verify), what must gc keep, how much is it (info). It also finds the paths
that damage affects.
"""

from __future__ import annotations

import typing as t

from .._base import Damaged
from .._store.table import Table
from . import chunks, links, tree
from .diff import differences
from .walk import join, leaves_first

Visit = t.Callable[[bytes, int], None]


def _nothing(_digest: bytes) -> None:
    """For walks that do not ask for metadata."""


class Reachability:
    """A walk over the trees of one backup after another.

    :param read: (digest, limit) -> bytes of a metadata blob, or Damaged.
    :param content: called with digest and size of each blob of file content, at least once for each tree or list that refers to it. It may raise
        Damaged: the walk ends, and what contains the blob is visited again next time.
    :param metadata: called with the digest of each tree, part, list and table before it is read.
    :param broken: called with the digest of metadata that cannot be read, and why; the walk continues. Without it, the walk ends.
    """

    def __init__(
        self,
        read: tree.Read,
        content: Visit,
        metadata: t.Callable[[bytes], None] = _nothing,
        broken: t.Optional[t.Callable[[bytes, Damaged], None]] = None,
    ) -> None:
        self._read, self._content, self._metadata, self._broken = read, content, metadata, broken
        # Trees, lists and content are separate: a file may contain the same bytes as a tree.
        self._trees, self._lists = Table(0), Table(0)

    def __call__(self, root: bytes, table: bytes) -> None:
        """Visit a backup: its root tree, and its table of hard links if there is one (else empty)."""
        if table and self._lists.find(table) < 0:
            self._metadata(table)
            self._attempt(table, lambda: all(links.decode(self._read(table, links.LIMIT))))  # read to its end, and not kept
            self._lists.add(table, b"")
        for digest in leaves_first(root, self._below, lambda digest: self._trees.find(digest) >= 0):
            self._trees.add(digest, b"")  # only now is all below it known to be as it should

    def beyond(self, old: tree.Entry, new: tree.Entry, table: bytes) -> None:
        """Visit what a backup refers to and another one does not: what differs between their trees, and more.

        :param old: the root of a backup that was visited, or need not be. :param table: of the new one.
        """
        if table:
            self._metadata(table)
        if old.content != new.content:
            self._listing(new.content)
        for _path, before, after in differences(self._read, self._read, old, new):
            if after is None or not after.content:
                continue
            if before is not None and (before.kind, before.content) == (after.kind, after.content):
                continue  # of another kind, the same digest refers to more: a file may contain the very bytes of a tree
            if after.kind != tree.DIRECTORY:
                size = (after.content, after.size)
                self._entries(tree.References([], [size], [], b"", b"") if after.kind == tree.CHUNKED else tree.References([size], [], [], b"", b""))
            elif before is not None and before.kind == tree.DIRECTORY:
                self._listing(after.content)
            else:
                self(after.content, b"")

    def _listing(self, digest: bytes) -> None:
        """The blobs that one directory's listing consists of."""
        self._metadata(digest)
        for part in tree.part_digests(self._read(digest, tree.BLOB_LIMIT)) or ():
            self._metadata(part)

    def _below(self, digest: bytes) -> t.List[bytes]:
        below: t.List[bytes] = []
        self._attempt(digest, lambda: below.extend(self._visit(digest)))
        return below

    def _attempt(self, digest: bytes, call: t.Callable[[], t.Any]) -> None:
        try:
            call()
        except Damaged as error:
            if self._broken is None:
                raise
            self._broken(digest, error)

    def _visit(self, digest: bytes) -> t.List[bytes]:
        """One directory: its content and lists; the digests of its subdirectories."""
        self._metadata(digest)
        blob = self._read(digest, tree.BLOB_LIMIT)
        parts = tree.part_digests(blob)
        if parts is None:
            return self._entries(tree.references(blob))
        below, last = [], b""
        for part in parts:
            self._metadata(part)
            found = tree.references(self._read(part, tree.BLOB_LIMIT))
            if found.last:
                if found.first <= last:
                    raise Damaged("The parts of a tree overlap.")
                last = found.last
            below += self._entries(found)
        return below

    def _entries(self, found: tree.References) -> t.List[bytes]:
        content = self._content
        for digest, size in found.files:
            content(digest, size)
        for digest, size in found.chunked:
            if self._lists.find(digest) < 0:
                self._metadata(digest)
                self._attempt(digest, lambda: self._chunks(digest, size))  # noqa: B023  called at once
                self._lists.add(digest, b"")
        return found.directories

    def _chunks(self, digest: bytes, size: int) -> None:
        for _offset, length, chunk in chunks.decode(self._read(digest, chunks.LIST_LIMIT), size).chunks():
            self._content(chunk, length)


class Tracer:
    """Finds the paths of a backup that need missing blobs. Each tree is read once for all backups, to count the findings below it; only
    if something is, and names are asked for, is it gone into again.

    :param lacking: digests of content or metadata, with what is wrong with each.
    """

    def __init__(self, read: tree.Read, lacking: t.Mapping[bytes, str]) -> None:
        self._read, self._lacking = read, lacking
        self._sound = Table(0)
        self._hurt: t.Dict[bytes, int] = {}

    def count(self, root: bytes, table: bytes) -> int:
        """How many findings there are in a backup."""
        under_way: t.Dict[bytes, t.Tuple[int, t.List[bytes]]] = {}

        def below(here: bytes) -> t.List[bytes]:
            entries = tree.load(self._read, here)
            children = [item.content for item in entries if item.kind == tree.DIRECTORY]
            under_way[here] = sum(len(self._of_file(item)) for item in entries if item.is_file), children
            return children

        for here in leaves_first(root, below, lambda digest: self._of(digest) >= 0):
            found, children = under_way.pop(here)
            found += sum(map(self._of, children))
            if found:
                self._hurt[here] = found
            else:
                self._sound.add(here, b"")
        return self._of(root) + (table in self._lacking)

    def __call__(self, root: bytes, table: bytes) -> t.Iterator[t.Tuple[bytes, str]]:
        """(path, what is wrong) of each finding, after `count`; a directory whose own listing is lost includes all below it."""
        if table in self._lacking:
            yield b"", self._lacking[table]
        todo = [(b"", root)]
        while todo:
            path, digest = todo.pop()
            if digest in self._lacking:
                yield path, self._lacking[digest]
                continue
            below = []
            for item in tree.load(self._read, digest):
                here = join(path, item.name)
                if item.kind == tree.DIRECTORY and self._of(item.content) > 0:
                    below.append((here, item.content))
                elif item.is_file:
                    for blob in self._of_file(item):
                        yield here, self._lacking[blob]
            todo += reversed(below)

    def _of(self, digest: bytes) -> int:
        """Findings below a tree, or -1 if unknown so far."""
        if digest in self._lacking:
            return 1
        if self._sound.find(digest) >= 0:
            return 0
        return self._hurt.get(digest, -1)

    def _of_file(self, item: tree.Entry) -> t.List[bytes]:
        """What a file lacks."""
        if item.content in self._lacking:
            return [item.content]
        if item.kind != tree.CHUNKED or self._sound.find(item.content) >= 0:
            return []
        found = chunks.decode(self._read(item.content, chunks.LIST_LIMIT), item.size).digests
        lost = list(dict.fromkeys(chunk for chunk in found if chunk in self._lacking))
        if not lost:
            self._sound.add(item.content, b"")
        return lost
