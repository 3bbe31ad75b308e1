# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Hard links, as a restore makes them: the first file of each group is restored, and the other paths become further names of it."""

from __future__ import annotations

import errno
import os
import typing as t

from .._base import files
from .._format.walk import join
from .._fs.descent import Trail

#: Another user removed or exchanged a directory on the way to the first member, or mounted something there: a file of its own is as good.
_EXCHANGED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV)


class Links:
    """Hard-link groups while they are being restored: where the first member of each was put, on each device."""

    def __init__(
        self, groups: t.List[t.List[bytes]], root: int, anchors: t.Mapping[t.Tuple[int, int], t.Tuple[bytes, int]], mounted: t.Mapping[bytes, int]
    ) -> None:
        """:param anchors: members that are in place already and will not be touched, and their inodes, by number of their group and device.
        :param mounted: mount points below the root that may be entered."""
        self._group_of = {path: number for number, paths in enumerate(groups) for path in paths}
        self._sizes = [len(paths) for paths in groups]
        self._placed = dict(anchors)
        self._known = {group for group, _device in anchors}
        self._root, self._mounted = root, mounted

    def size(self, path: bytes) -> int:
        """How many names the backup gives the file at a path."""
        group = self._group_of.get(path)
        return 1 if group is None else self._sizes[group]

    def placed(self, path: bytes, info: os.stat_result) -> bool:
        """The path has this file now; later members of its group become further names of it. Whether other members have another file."""
        group = self._group_of.get(path)
        if group is None:
            return False
        apart = group in self._known and self._placed.get((group, info.st_dev), (b"", -1))[0] != path  # a second attempt is none
        self._known.add(group)
        self._placed[group, info.st_dev] = path, info.st_ino
        return apart

    def link(self, path: bytes, device: int, directory: int, name: bytes) -> bool:
        """Make a name a further one of the file that the path's group has on this device. False where there is none, or it has all the names that it may."""
        group = self._group_of.get(path)
        first, inode = (b"", -1) if group is None else self._placed.get((group, device), (b"", -1))
        if inode < 0 or first == path:
            return False
        parent, _slash, last = first.rpartition(b"/")
        try:
            fd = self._open(parent)
        except OSError as error:
            if error.errno in _EXCHANGED:
                return False
            raise
        try:
            os.link(last, name, src_dir_fd=fd, dst_dir_fd=directory, follow_symlinks=False)
        except OSError as error:
            if error.errno in (errno.EMLINK, errno.EXDEV, errno.ENOENT):
                return False
            raise
        finally:
            os.close(fd)
        if os.stat(name, dir_fd=directory, follow_symlinks=False).st_ino == inode:
            return True
        files.unlink(name, directory)  # another user put a file of his in the place of that one
        return False

    def _open(self, path: bytes) -> int:
        """A directory below the root, part by part: no symlink leads astray, and no path is too long."""
        with Trail(os.dup(self._root)) as trail:
            here = b""
            for part in path.split(b"/") if path else ():
                here = join(here, part)
                trail.enter_on_mount(part, self._mounted.get(here))
            return os.dup(trail.fd)
