# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Which metadata a file system can store, found out by trying on an unnamed file (open(2), O_TMPFILE).

A table of file systems would be wrong on the next kernel: it depends on the type, its version, how it was made and mounted, and
on our user namespace. Most can store everything, which one trial for each device shows.
"""

from __future__ import annotations

import errno
import os
import secrets
import typing as t

from .._base import Closing, files
from .._format.tree import FILE, Entry
from . import acl, metadata

#: An owner that no user namespace but the first one has; a time with all its digits, and one beyond 2038.
_OWNER = 0x7FFFFFF0
#: As many trials are remembered on a device that does not hold all.
_REMEMBERED = 10_000
_TIMES = (1_234_567_891_123_456_789, 4_102_444_800_123_456_789)


_Found = t.TypeVar("_Found")


class Basics(t.NamedTuple):
    """The stats of an entry that a restore sets: its ids on this host, mode without type, and time in nanoseconds."""

    uid: int
    gid: int
    mode: int
    mtime: int


class Holder:
    """Which metadata the file systems below a target can store.

    :param named: a file system without nameless files may be given one that has a name for a moment. Check mode writes no names.
    """

    def __init__(self, named: bool) -> None:
        self._named = named
        self._root = os.geteuid() == 0
        self._faithful: t.Dict[int, bool] = {}
        self._basics: t.Dict[t.Tuple[int, Basics], Basics] = {}
        self._xattrs: t.Dict[t.Tuple[int, metadata.Xattrs], metadata.Xattrs] = {}

    def is_faithful(self, directory: int, device: int) -> bool:
        """Whether a device can store each owner, mode and time. True also if that cannot be tried: then a difference is a difference.

        :param directory: a descriptor of a directory on it.
        """
        known = self._faithful.get(device)
        if known is None:
            known = self._faithful[device] = all(self._holds_time(directory, moment) for moment in _TIMES) and self._holds_owner(directory)
        return known

    def held(self, wanted: Basics, directory: int, device: int) -> Basics:
        """What this device makes of an entry's owner, mode and time."""
        if self.is_faithful(directory, device):
            return wanted
        key = (device, wanted)
        if key not in self._basics:
            if len(self._basics) > _REMEMBERED:
                self._basics.clear()
            self._basics[key] = self._try_basics(wanted, directory)
        return self._basics[key]

    def _try_basics(self, wanted: Basics, directory: int) -> Basics:
        def trial(fd: int) -> Basics:
            seconds, nanos = divmod(wanted.mtime, 1_000_000_000)
            metadata.Setter(metadata.Owners({}, {})).file(fd, Entry(b"", FILE, wanted.mode, wanted.uid, wanted.gid, seconds, nanos, 0, b""), b"")
            info = os.fstat(fd)
            return Basics(info.st_uid, info.st_gid, info.st_mode & 0o7777, info.st_mtime_ns)

        return self._tried(directory, trial, wanted, wanted)

    def held_xattrs(self, xattrs: metadata.Xattrs, directory: int, device: int) -> metadata.Xattrs:
        """Those of some attributes that this device can store together."""
        key = (device, xattrs)
        if key not in self._xattrs:
            self._xattrs[key] = self._try_xattrs(xattrs, directory)
        return self._xattrs[key]

    def _try_xattrs(self, xattrs: metadata.Xattrs, directory: int) -> metadata.Xattrs:
        def trial(fd: int) -> metadata.Xattrs:
            # only directories have a default ACL; a file system with ACLs supports both
            refused = metadata.set_xattrs(fd, tuple((acl.ACCESS if name == acl.DEFAULT else name, value) for name, value in xattrs))
            kept = dict(metadata.read_xattrs(fd))
            default = acl.ACCESS.decode() not in refused
            return tuple(
                (name, value)
                for name, value in xattrs
                if (default if name == acl.DEFAULT else kept.get(name) == value or name == acl.ACCESS and default)
            )

        return self._tried(directory, trial, xattrs, xattrs)

    def _holds_owner(self, directory: int) -> bool:
        if not self._root:
            return True  # owners are not compared then

        def trial(fd: int) -> bool:
            os.fchown(fd, _OWNER, _OWNER)
            os.fchmod(fd, 0o2750)
            info = os.fstat(fd)
            return (info.st_uid, info.st_gid, info.st_mode & 0o7777) == (_OWNER, _OWNER, 0o2750)

        return self._tried(directory, trial, True, False)

    def _holds_time(self, directory: int, moment: int) -> bool:
        def trial(fd: int) -> bool:
            metadata.set_time(fd, moment)
            return os.fstat(fd).st_mtime_ns == moment

        return self._tried(directory, trial, True, False)

    def _tried(self, directory: int, trial: t.Callable[[int], _Found], unknown: _Found, refused: _Found) -> _Found:
        """What a trial with a new file finds; `unknown` if there can be no file, `refused` for an error of the system."""
        fd = self._nameless(directory)
        if fd < 0:
            return unknown
        with Closing(fd):
            try:
                return trial(fd)
            except OSError:
                return refused

    def _nameless(self, directory: int) -> int:
        """A new file without a name on a directory's file system; -1 if there can be none."""
        try:
            return files.create_nameless(directory)
        except OSError as error:
            if not self._named or error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOSYS):
                return -1
        name = b".volt-restore-" + secrets.token_hex(8).encode()
        try:
            fd = files.create_file(name, directory)
            os.unlink(name, dir_fd=directory)
            return fd
        except OSError:
            return -1
