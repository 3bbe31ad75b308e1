# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The stat cache of a target: files whose content was hashed, and the stats that they had then.

A file that still has the inode, size, mtime and ctime is not hashed again. It is believed only where a change must have moved the ctime: on a
file system whose stats prove something, and only if the ctime is old enough. For a file that a comparison hashed, that is 2 s before the start of the
comparison. A new tree is private until the exchange, so for a file in it, it is any time before the one that its file system has right before that.

One derived file for each target, in the store's cache: a head, then the columns inode, size, mtime and ctime, ascending by inode, and the digests.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import mmap
import os
import struct
import typing as t
import zlib
from array import array
from bisect import bisect_left

from .._base import open_file
from .._fs.mounts import Kinds
from .._store.cache import Cache

ENDING = ".target"
_MAGIC = b"VOLTTGT1"
_HEAD = struct.Struct("=8sIIqQ")  # magic, CRC-32 of all behind it, bytes of the path, file system, files
#: A clock and a file system may be so coarse (stat cache of a source: the same).
_RACY = 2_000_000_000
_MASK = (1 << 64) - 1


class Seen:
    """Files of one device whose content is known by hash."""

    def __init__(self, device: int, since: int) -> None:
        """:param since: from when on a change would be seen, in ns; a file of a younger ctime is not noted."""
        self.device = device
        self.before = since - _RACY
        self.columns = (array("Q"), array("Q"), array("Q"), array("Q"))
        self.digests = bytearray()

    def add(self, info: os.stat_result, digest: bytes) -> bool:
        """Note the content of a file with these stats; whether they are old enough for that."""
        if info.st_dev != self.device or info.st_ctime_ns > self.before:
            return False
        self.note(info, digest)
        return True

    def note(self, info: os.stat_result, digest: bytes) -> None:
        """The same without a look at the age."""
        for column, value in zip(self.columns, _stats(info)):
            column.append(value)
        self.digests += digest

    def take(self, other: Seen, since: int) -> None:
        """Add what another one, which is empty then, has noted before it was known from when on its files could change.

        :param since: that time in ns, by the clock of their file system.
        """
        old = array("I", (number for number, ctime in enumerate(other.columns[3]) if other.device == self.device and ctime < since))
        for column, values in zip(self.columns, other.columns):
            column.extend(values[number] for number in old)
            del values[:]  # it is not needed twice, and a million files have much of it
        for number in old:
            self.digests += other.digests[32 * number : 32 * number + 32]
        other.digests.clear()


class Known:
    """What the cache of a target knows. Call it with the stats of a file: the digest of its content, or None."""

    def __init__(self, cache: Cache, path: bytes, fd: int) -> None:
        """:param path: of the target, by which its cache is found. :param fd: a descriptor of it."""
        self._cache, self._path = cache, path
        kinds, self.device = Kinds(), os.fstat(fd).st_dev
        self._identity = -1 if kinds.untrusted(self.device) else kinds.identity(fd, self.device)
        self._name = hashlib.sha256(path).hexdigest()[:32] + ENDING
        self._count = -1  # not read yet
        self._columns: t.List[t.Any] = []
        self._digests: t.Any = b""

    def __call__(self, info: os.stat_result) -> t.Optional[bytes]:
        if self._count < 0:
            self._open()
        if not self._count or info.st_dev != self.device:
            return None
        at = bisect_left(self._columns[0], info.st_ino)
        if at == self._count:
            return None
        found = tuple(column[at] for column in self._columns)
        if found != _stats(info):
            return None
        return bytes(self._digests[32 * at : 32 * at + 32])

    def keep(self, seen: Seen, more: bool) -> None:
        """Write the cache anew, of what was seen, which is empty then.

        Where that fails (a store that is not ours to write), the next comparison hashes more, and nothing else is lost.

        :param more: also keep what is known of other files; else all that was not seen is gone.
        """
        inodes = seen.columns[0]
        if more:
            self._add_to(seen, set(inodes))
        if self._identity < 0 or not inodes:
            self._cache.remove(self._name)
            return
        order = _ascending(inodes)
        pieces = [struct.pack("=IqQ", len(self._path), self._identity, len(order)), self._path]
        for column in seen.columns:
            pieces.append(array("Q", (column[number] for number in order)).tobytes())
            del column[:]
        digests = bytearray(32 * len(order))
        for at, number in enumerate(order):
            digests[32 * at : 32 * at + 32] = seen.digests[32 * number : 32 * number + 32]
        seen.digests.clear()
        checksum = 0
        for piece in (*pieces, digests):
            checksum = zlib.crc32(piece, checksum)
        with contextlib.suppress(OSError):
            self._cache.write(self._name, (_MAGIC, struct.pack("=I", checksum), *pieces, digests))

    def _add_to(self, seen: Seen, inodes: t.Set[int]) -> None:
        self._open()
        for at in range(self._count):
            if self._columns[0][at] not in inodes:
                for column, values in zip(seen.columns, self._columns):
                    column.append(values[at])
                seen.digests += self._digests[32 * at : 32 * at + 32]

    def _open(self) -> None:
        self._count = 0
        view = _mapped(self._cache.path(self._name))
        if view is None or self._identity < 0:
            return
        _magic, checksum, length, identity, count = _HEAD.unpack_from(view)
        start = _HEAD.size + length
        if len(view) != start + 64 * count or (view[_HEAD.size : start], identity) != (self._path, self._identity):
            return
        if zlib.crc32(memoryview(view)[12:]) != checksum:
            return
        columns = memoryview(view)[start : start + 32 * count]
        self._columns = [_numbers(columns[8 * count * number : 8 * count * (number + 1)]) for number in range(4)]
        self._digests = memoryview(view)[start + 32 * count :]
        self._count = count


def _ascending(inodes: t.Sequence[int]) -> t.Sequence[int]:
    """The positions of inodes in ascending order. Sorted in groups of near inodes: sorting a million Python numbers at once takes 180 MB."""
    groups: t.DefaultDict[int, t.MutableSequence[int]] = collections.defaultdict(lambda: array("I"))
    for position, inode in enumerate(inodes):
        groups[inode >> 16].append(position)
    order = array("I")
    for _start, group in sorted(groups.items()):
        order.extend(sorted(group, key=inodes.__getitem__))
    return order


def sweep(cache: Cache) -> None:
    """Remove the caches of targets that are gone."""
    for name in cache.names(ENDING):
        view = _mapped(cache.path(name))
        if view is None or not os.path.isdir(bytes(view[_HEAD.size : _HEAD.size + _HEAD.unpack_from(view)[2]])):
            cache.remove(name)


def _stats(info: os.stat_result) -> t.Tuple[int, int, int, int]:
    """The four numbers of a file as they are noted: times before 1970 and far ahead of us are cut to 64 bits."""
    return info.st_ino, info.st_size, info.st_mtime_ns & _MASK, info.st_ctime_ns & _MASK


def _numbers(view: memoryview) -> t.Any:
    try:
        return view.cast("Q")
    except (TypeError, ValueError):
        return array("Q", view.tobytes())


def _mapped(path: str) -> t.Any:
    try:
        fd = open_file(path)
    except OSError:
        return None
    try:
        if os.fstat(fd).st_size < _HEAD.size:
            return None
        view = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
        return view if view[:8] == _MAGIC else None
    except (OSError, ValueError):
        return None
    finally:
        os.close(fd)
