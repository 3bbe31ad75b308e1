# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Going about in directories that others may change meanwhile: by descriptor, one name at a time, never through a symlink."""

from __future__ import annotations

import errno
import os
import stat
import typing as t
from operator import itemgetter

from .._base import VoltError, files, open_directory
from .._format import chunks

#: Descriptors kept of a path; trees may be deeper than a process may have files open.
_KEEP = 128

Item = t.Tuple[str, os.stat_result]
_by_name = itemgetter(0)


def _by_bytes(item: Item) -> bytes:
    return os.fsencode(item[0])


def listing(fd: int) -> t.Tuple[t.List[Item], t.List[bytes]]:
    """A directory's entries with their stats, in byte order of their names, and the names as bytes.

    What vanishes between listing and stat is left out.
    """
    items: t.List[Item] = []
    append = items.append
    with os.scandir(fd) as entries:
        for entry in entries:
            try:
                append((entry.name, entry.stat(follow_symlinks=False)))
            except FileNotFoundError:
                continue
    joined = "\0".join([item[0] for item in items])
    if joined.isascii():
        items.sort(key=_by_name)
    else:
        items.sort(key=_by_bytes)  # text order differs from byte order where names are not UTF-8
    if not items:
        return items, []
    return items, os.fsencode("\0".join([item[0] for item in items])).split(b"\0")


class Moved(VoltError):
    """A directory is no longer where it was when we entered it."""

    code = "moved"


class Trail:
    """The open directories from a root down to where we are."""

    def __init__(self, root: int) -> None:
        """:param root: a descriptor, which the trail closes at its end."""
        info = os.fstat(root)
        self._steps: t.List[t.Tuple[int, int, int]] = [(root, info.st_dev, info.st_ino)]

    @property
    def fd(self) -> int:
        """The directory where we are."""
        return self._steps[-1][0]

    @property
    def depth(self) -> int:
        return len(self._steps)

    def enter(self, name: t.Union[str, bytes], flags: int = 0) -> os.stat_result:
        """Go down; OSError where the name is no directory, or a symlink to one."""
        fd = open_directory(name, self.fd, flags=flags)
        info = os.fstat(fd)
        self._steps.append((fd, info.st_dev, info.st_ino))
        old = len(self._steps) - _KEEP
        if old > 0 and self._steps[old][0] >= 0:  # the root stays open
            os.close(self._steps[old][0])
            self._steps[old] = (-1,) + self._steps[old][1:]
        return info

    def leave(self) -> None:
        """Go up. Moved where the directory that we came through is another by now."""
        child = self._steps.pop()[0]
        try:
            fd, device, inode = self._steps[-1]
            if fd < 0:
                fd = open_directory("..", child)
                info = os.fstat(fd)
                self._steps[-1] = (fd, device, inode)
                if (info.st_dev, info.st_ino) != (device, inode):
                    raise Moved("A directory was moved while it was being walked; run again when the tree is quiet.")
        finally:
            os.close(child)

    def close(self) -> None:
        while self._steps:
            fd = self._steps.pop()[0]
            if fd >= 0:
                os.close(fd)

    def __enter__(self) -> Trail:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


def is_directory(info: os.stat_result) -> bool:
    return stat.S_ISDIR(info.st_mode)


def open_source(name: str, directory: int) -> int:
    """Open without changing the access time where we may; never blocks on a fifo put in a file's place."""
    try:
        return files.open_file(name, os.O_RDONLY | os.O_NOATIME, directory)
    except PermissionError:
        return files.open_file(name, directory=directory)  # O_NOATIME is for owners; the rest decides itself


def find_holes(fd: int, size: int) -> chunks.Holes:
    """(offset, length) of each hole of an open file of `size` bytes; none where the file system cannot tell."""
    holes = []
    offset = 0
    try:
        while offset < size:
            start = os.lseek(fd, offset, os.SEEK_HOLE)
            if start >= size:
                break
            try:
                end = min(os.lseek(fd, start, os.SEEK_DATA), size)
            except OSError as error:
                if error.errno != errno.ENXIO:  # no data up to the end
                    raise
                end = size
            if end <= start:
                break  # the file shrinks under our hands; the capture notices
            holes.append((start, end - start))
            offset = end
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENXIO):
            raise
    return tuple(holes)
