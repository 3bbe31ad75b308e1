# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Going about in directories that others may change meanwhile: by descriptor, one name at a time, never through a symlink."""

from __future__ import annotations

import os
import stat
import typing as t
from operator import itemgetter

from .._store.errors import VoltError

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
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
        fd = os.open(name, _OPEN | flags, dir_fd=self.fd)
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
                fd = os.open("..", _OPEN, dir_fd=child)
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


def open_directory(path: bytes) -> int:
    """A descriptor of a directory; symlinks in the path are followed, as for any path that a user gives."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def is_directory(info: os.stat_result) -> bool:
    return stat.S_ISDIR(info.st_mode)


def join(parent: bytes, name: bytes) -> bytes:
    """A path relative to a root, which itself is empty."""
    return parent + b"/" + name if parent else name
