# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""What has taken the place of the files of an earlier backup: how many went, came and changed, and how many of them look lost, by samples.

The two trees are gone through as often as something is asked, so that memory is needed for samples and names alone. Empty files count as none.
Content that is still there under another name was moved: it is neither gone nor new.
"""

from __future__ import annotations

import heapq
import os
import re
import typing as t
import zlib
from collections import Counter

from .._base import Closing, Damaged, Unsupported, files
from .._format import chunks, diff, tree
from .._format.tree import CHUNKED, DIRECTORY, FILE, Entry, Read
from .._format.walk import join, walk
from .._store.store import Store
from .._store.table import Table
from . import content

#: Files that are looked at, of those that changed, came and went each.
_SAMPLE = 128
#: So many files of a sample that were different and have the same content now were overwritten.
_SAME = 8
#: Endings of names that tell a format, and those that a compressor adds.
_ENDING = re.compile(rb"\.([A-Za-z][A-Za-z0-9]{0,4})\Z")
_PACKED = re.compile(rb"\.(?:gz|bz2|xz|zst|lz4|lzma|br|Z)\Z")
_GONE, _CAME = 1, 2

#: How a file begins: (path, entry) -> its first `content.HEAD` bytes. Damaged, Unsupported or OSError where it cannot be read.
Heads = t.Callable[[bytes, Entry], bytes]


class Loss(t.NamedTuple):
    """Files of an earlier backup that were replaced by what looks encrypted or wiped: how many, as samples tell, and the path of one."""

    files: int = 0
    example: bytes = b""


class _Some:
    """A sample of paths with their entries. Which ones depends on the whole new tree: one who writes to it cannot choose them.

    :ivar count: of all that were offered.
    """

    def __init__(self, salt: int) -> None:
        self._salt, self.count = salt, 0
        self._heap: t.List[t.Tuple[int, int, bytes, Entry, Entry]] = []

    def offer(self, path: bytes, old: Entry, new: Entry) -> None:
        self.count += 1
        item = (-zlib.crc32(path, self._salt), self.count, path, old, new)
        if len(self._heap) < _SAMPLE:
            heapq.heappush(self._heap, item)
        else:
            heapq.heappushpop(self._heap, item)

    @property
    def items(self) -> t.List[t.Tuple[bytes, Entry, Entry]]:
        return sorted(item[2:] for item in self._heap)

    def of_all(self, part: t.Sized) -> float:
        """How many of all it is, if it is so many of the sample."""
        return len(part) * self.count / len(self._heap) if self._heap else 0.0


class _Found:
    """What a second look finds, without what was moved."""

    def __init__(self, salt: int) -> None:
        self.changed, self.gone, self.came = _Some(salt), _Some(salt), _Some(salt)
        self.went: t.Set[int] = set()  # hashes of paths
        self.here: t.Set[int] = set()
        self.endings: t.Tuple[t.Counter[bytes], t.Counter[bytes]] = (Counter(), Counter())  # of those that went, and of those that came


class Replacement:
    """What has taken the place of the files of an earlier backup. Damaged or Unsupported where its trees cannot be read.

    :ivar changed: how many have other content. :ivar gone: how many are not there under their name. :ivar came: how many are new.
    """

    def __init__(self, store: Store, old: Entry, new: Entry, read: Read, heads: Heads) -> None:
        self._store, self._old, self._new, self._read, self._heads = store, old, new, read, heads
        self._old_heads = heads_in(store)
        self._known: t.Optional[_Found] = None
        self.changed = self.gone = self.came = 0
        for _path, a, b in self._pairs():
            self.changed += a is not None and b is not None
            self.gone += a is not None and b is None
            self.came += a is None and b is not None

    def _pairs(self) -> t.Iterator[t.Tuple[bytes, t.Optional[Entry], t.Optional[Entry]]]:
        """(path, old entry, new entry) of each file whose content is not what it was."""
        for above, a, b in diff.differences(self._store.read, self._read, self._old, self._new):
            if a is not None and b is not None and a.kind == b.kind == DIRECTORY:
                continue
            if a is not None and b is not None and DIRECTORY not in (a.kind, b.kind):
                if a.content != b.content:
                    yield join(above, a.name), a if _is_filled(a) else None, b if _is_filled(b) else None
                continue
            for path, entry in _files_below(self._store.read, above, a):
                yield path, entry, None
            for path, entry in _files_below(self._read, above, b):
                yield path, None, entry

    @property
    def differs(self) -> bool:
        return bool(self.changed or self.gone or self.came)

    def loss(self, least: float) -> Loss:
        """Which files were lost. Nothing is read where fewer than `least` could have been."""
        if self.changed + min(self.gone, self.came) <= least:
            return Loss()
        found = self._found
        same: t.Dict[bytes, t.Set[bytes]] = {}
        for _path, a, b in found.changed.items:
            same.setdefault(b.content, set()).add(a.content)
        over = [path for path, a, b in found.changed.items if len(same[b.content]) >= _SAME or self._is_lost(path, b) and self._was_sound(path, a)]
        count = found.changed.of_all(over)
        locked = [path for path, _a, b in found.came.items if hash(path.rpartition(b".")[0]) not in found.here and self._is_locked(path, b)]
        if locked:
            sound = [path for path, a, _b in found.gone.items if self._was_sound(path, a)]
            count += min(found.came.of_all(locked), found.gone.of_all(sound))
        return Loss(round(count), (over or locked)[0]) if count else Loss()

    def masked(self) -> int:
        """How many of the files that went have one in their place whose name has an ending that none of them had."""
        found = self._found
        went, here = found.endings
        return min(found.gone.count, found.came.count) - sum((went & here).values())

    def packed(self) -> int:
        """How many of the files that went were objects of git, where a pack came: git gc puts them into one, and nothing is lost."""
        found = self._found
        if not any(content.is_git_pack(_head(self._heads, path, b) or b"") for path, _a, b in found.came.items):
            return 0
        objects = [path for path, a, _b in found.gone.items if content.is_zlib(_head(self._old_heads, path, a) or b"")]
        return round(found.gone.of_all(objects))

    @property
    def _found(self) -> _Found:
        if self._known is None:
            self._known = self._look()
        return self._known

    def _look(self) -> _Found:
        sides = Table(4, self.gone + self.came)  # digest -> whether it went, came, or both
        for _path, a, b in self._pairs():
            if a is None or b is None:
                digest, side = (b.content, _CAME) if b is not None else (t.cast(Entry, a).content, _GONE)
                position = sides.find(digest)
                if position < 0:
                    sides.add(digest, bytes([side, 0, 0, 0]))
                else:
                    sides.replace(position, bytes([sides.value(position)[0] | side, 0, 0, 0]))
        found = _Found(int.from_bytes(self._new.content[:4], "big"))
        for path, a, b in self._pairs():
            if a is not None and b is not None:
                found.changed.offer(path, a, b)
                continue
            entry = t.cast(Entry, b if a is None else a)
            if sides.value(sides.find(entry.content))[0] == _GONE | _CAME:
                continue
            some, names, side = (found.came, found.here, 1) if a is None else (found.gone, found.went, 0)
            some.offer(path, entry, entry)
            names.add(hash(path))
            found.endings[side][_ending(path)] += 1
        return found

    def _is_lost(self, path: bytes, entry: Entry) -> bool:
        head = _head(self._heads, path, entry)
        return head is not None and content.is_lost(head)

    def _was_sound(self, path: bytes, entry: Entry) -> bool:
        head = _head(self._old_heads, path, entry)
        return head is not None and not content.is_lost(head)

    def _is_locked(self, path: bytes, entry: Entry) -> bool:
        """Whether a file that came looks lost, or has the name of one that went and an ending more, and is not just compressed."""
        head = _head(self._heads, path, entry)
        if head is None:
            return False
        return content.is_lost(head) or hash(path.rpartition(b".")[0]) in self._found.went and not content.is_compressed(head)


def count_filled(read: Read, root: Entry) -> int:
    """How many files with content there are in a tree."""
    return sum(1 for _file in _files_below(read, b"", root))


def heads_in(store: Store) -> Heads:
    """How files begin whose content is in a store."""

    def head(_path: bytes, entry: Entry) -> bytes:
        size, digest = entry.size, entry.content
        if entry.kind == CHUNKED:
            found = chunks.decode(store.read(digest, chunks.LIST_LIMIT), size)
            offset, size, digest = next(iter(found.chunks()), (1, 0, b""))
            if offset:
                return bytes(content.HEAD)  # it begins with a hole
        read = store.read if size <= chunks.PACKED_MOST else store.read_object_first
        return read(digest, size)[: content.HEAD]

    return head


def heads_below(source: bytes) -> Heads:
    """How files begin that lie below a directory. No symbolic link is followed."""

    def head(path: bytes, _entry: Entry) -> bytes:
        above, _slash, name = path.rpartition(b"/")
        with Closing(files.open_real(join(source, above))) as directory, Closing(files.open_file(name, directory=directory)) as fd:
            return os.pread(fd, content.HEAD, 0) if files.is_regular(fd) else b""

    return head


def _head(heads: Heads, path: bytes, entry: Entry) -> t.Optional[bytes]:
    """How a file begins; None where that cannot be told."""
    try:
        return heads(path, entry)
    except (Damaged, Unsupported, OSError):
        return None


def _is_filled(entry: Entry) -> bool:
    return entry.kind in (FILE, CHUNKED) and entry.size > 0


def _files_below(read: Read, above: bytes, top: t.Optional[Entry]) -> t.Iterator[t.Tuple[bytes, Entry]]:
    """All files with content of an entry and below it."""
    if top is not None:
        for path, entry in walk(lambda digest: tree.load(read, digest), top, join(above, top.name)):
            if _is_filled(entry):
                yield path, entry


def _ending(path: bytes) -> bytes:
    """The ending of a name, without that of a compressor; empty where it tells nothing."""
    found = _ENDING.search(_PACKED.sub(b"", path))
    return found[1].lower() if found else b""
