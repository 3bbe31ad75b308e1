# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Inode flags and project ids, which are not in a backup, so a restore keeps those of the file that it replaces.

They control how a file system treats a file: no copy on write (`chattr +C`), no dump, a quota's project. Sources:
ioctl_iflags(2), linux/fs.h (struct fsxattr). A file system without them returns ENOTTY, and nothing is copied.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import sys
import typing as t

from .._base import kernel, open_file

_LONG = struct.calcsize("l")  # so their numbers say; the kernel reads and writes four bytes
_GETFLAGS, _SETFLAGS = kernel.ioctl_number(True, False, ord("f"), 1, _LONG), kernel.ioctl_number(False, True, ord("f"), 2, _LONG)
_XATTR = struct.Struct("=5I8x")  # xflags, extent size, extents, project, copy-on-write extent size, padding
_GETXATTR, _SETXATTR = kernel.ioctl_number(True, False, ord("X"), 31, _XATTR.size), kernel.ioctl_number(False, True, ord("X"), 32, _XATTR.size)

_LITTLE = sys.byteorder == "little"
_IMMUTABLE, _APPEND = 0x10, 0x20
#: Sync, no dump, no access times, journalled data, synchronous directory, no copy on write, compressed, not compressed.
_CARRIED = 0x8 | 0x40 | 0x80 | 0x4000 | 0x10000 | 0x800000 | 0x4 | 0x400
_INHERITS_PROJECT = 0x200


class Flags(t.NamedTuple):
    """The flags of a file. `project`: a quota's number; `inherits`: whether new files in a directory get it too."""

    flags: int = 0
    project: int = 0
    inherits: bool = False

    @property
    def is_immutable(self) -> bool:
        """Whether the file may not be changed, removed or renamed (`chattr +i`, `chattr +a`)."""
        return bool(self.flags & (_IMMUTABLE | _APPEND))


NONE = Flags()


def read_flags(fd: int) -> Flags:
    """The flags of an open file or directory; NONE if its file system has none."""
    try:
        flags = int.from_bytes(fcntl.ioctl(fd, _GETFLAGS, bytes(4)), "little" if _LITTLE else "big")
    except OSError:
        return NONE
    try:
        fields = _XATTR.unpack(fcntl.ioctl(fd, _GETXATTR, bytes(_XATTR.size)))
        return Flags(flags, fields[3], bool(fields[0] & _INHERITS_PROJECT))
    except OSError:
        return Flags(flags)


def flags_at(directory: int, name: bytes) -> Flags:
    """The same of a regular file or directory by its name; NONE for all others, and for those that cannot be opened."""
    try:
        if stat.S_IFMT(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
            return NONE
        fd = open_file(name, directory=directory)
    except OSError:
        return NONE
    try:
        return read_flags(fd)
    finally:
        os.close(fd)


def carry(old: Flags, fd: int) -> t.List[str]:
    """Set the flags of the old file or directory on a new, empty one, except those that would block the restore; returns what failed."""
    lacks = []
    new = read_flags(fd)
    wanted = new.flags & ~_CARRIED | old.flags & _CARRIED
    if wanted != new.flags:
        try:
            fcntl.ioctl(fd, _SETFLAGS, wanted.to_bytes(4, "little" if _LITTLE else "big"))
        except OSError:
            lacks.append("flags")
    if (old.project, old.inherits) != (new.project, new.inherits):
        try:
            fields = list(_XATTR.unpack(fcntl.ioctl(fd, _GETXATTR, bytes(_XATTR.size))))
            fields[0] = fields[0] & ~_INHERITS_PROJECT | (_INHERITS_PROJECT if old.inherits else 0)
            fields[3] = old.project
            fcntl.ioctl(fd, _SETXATTR, _XATTR.pack(*fields))
        except OSError:
            lacks.append("project")
    return lacks
