# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Private rooms: directories of ours in which new things grow, out of reach of the users whose directories they will be put into.

A file that is made under a name in another user's directory can be exchanged for another one before it gets its owner. In a room it cannot: only
what is complete is renamed out of it. A rename stays on one mount and one device, so each such stretch of a target has a room of its own, made
when it is first needed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
import typing as t

from .._base import Closing, files, open_directory, show
from .._format.walk import join
from .remove import Remover

_NAME = re.compile(rb"\.volt-restore-[0-9a-f]{16}\Z")
_MARK = b"volt-restore"


def mark(directory: int, owner: bytes) -> None:
    """Say in a directory that a restore made it, and for what: a name alone might be a user's own."""
    with Closing(files.create_file(_MARK, directory)) as fd:
        os.write(fd, owner)


def is_marked(directory: int, owner: bytes) -> bool:
    """Whether a directory is left from a restore that made it for this."""
    try:
        fd = files.open_file(_MARK, directory=directory)
    except OSError:
        return not os.listdir(directory)  # died before it could say so
    with Closing(fd):
        said = os.read(fd, 256)
        return said == owner or not said and os.listdir(directory) == [os.fsdecode(_MARK)]  # died before it could say more


def unmark(directory: int) -> None:
    """Take the mark away, so that the directory can be removed."""
    files.unlink(_MARK, directory)


def is_left(directory: int, name: bytes) -> bool:
    """Whether a name in a directory of a target is a room of ours. The target's lock tells whether its restore may still live."""
    if not _NAME.match(name):
        return False
    with contextlib.suppress(OSError), Closing(open_directory(name, directory)) as fd:
        return files.is_private(fd) and is_marked(fd, b"")
    return False


def remove_left(directory: int, name: bytes) -> None:
    """Remove such a room, and leave the directory's time as it is."""
    info = os.fstat(directory)
    with contextlib.suppress(OSError):
        Remover(None).remove(directory, name, b"")
        os.utime(directory, ns=(info.st_atime_ns, info.st_mtime_ns))


class _Room:
    """The room of one stretch of a target. `fd` is -1 until it is made."""

    def __init__(self, path: bytes, parent: int) -> None:
        self.path, self.parent = path, parent
        self.device = os.fstat(parent).st_dev
        self.fd = -1
        self.name = b""
        self._times: t.Tuple[int, int, int] = (0, 0, 0)

    def make(self) -> None:
        before = os.fstat(self.parent)
        self.name = b".volt-restore-" + secrets.token_hex(8).encode()
        os.mkdir(self.name, 0o700, dir_fd=self.parent)
        self.fd = open_directory(self.name, self.parent)
        if not files.is_private(self.fd):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))  # another user put it in the place of ours
        mark(self.fd, b"")
        self._times = (before.st_atime_ns, before.st_mtime_ns, os.fstat(self.parent).st_mtime_ns)

    def remove(self) -> bool:
        """Whether nothing of it is left; else the next restore sweeps it."""
        gone = self.fd < 0
        if not gone:
            with contextlib.suppress(OSError):
                unmark(self.fd)
                quiet = os.fstat(self.parent).st_mtime_ns == self._times[2]
                os.rmdir(self.name, dir_fd=self.parent)
                gone = True
                if quiet:
                    os.utime(self.parent, ns=self._times[:2])  # nothing but the room came and went
            os.close(self.fd)
        os.close(self.parent)
        return gone


class Rooms:
    """The rooms of a restore in place, as a context. Without root, it also opens up our own read-only directories for a while.

    :param mounted: mount points below the target that may be entered, and ids of the mounts. :param kept: gets the paths of rooms that cannot be removed.
    """

    def __init__(self, mounted: t.Mapping[bytes, int], kept: t.List[str]) -> None:
        self.mounted, self._kept = mounted, kept
        self._rooms: t.List[_Room] = []
        self._count = 0
        self._modes: t.Dict[bytes, int] = {}

    def __enter__(self) -> Rooms:
        return self

    def __exit__(self, *_exception: object) -> None:
        while self._rooms:
            self._end()

    def _end(self) -> None:
        room = self._rooms.pop()
        if not room.remove():
            self._kept.append(show(join(room.path, room.name)))

    def enter(self, path: bytes, fd: int) -> None:
        """Take note of a directory that is entered."""
        if not self._rooms or path in self.mounted or os.fstat(fd).st_dev != self._rooms[-1].device:
            self._rooms.append(_Room(path, os.dup(fd)))

    def leave(self, path: bytes) -> None:
        """All below a directory is done."""
        while self._rooms and self._rooms[-1].path == path:
            self._end()

    def places(self, path: bytes, directory: int) -> t.Iterator[t.Tuple[int, bytes]]:
        """(room, unused name in it) to make something for a directory, then one in a room of that directory itself, should a rename from the first not do."""
        for attempt in range(2):
            if attempt:
                self._rooms.append(_Room(path, os.dup(directory)))
            room = self._rooms[-1]
            if room.fd < 0:
                self.make_writable(room.path, room.parent)
                room.make()
            self._count += 1
            yield room.fd, b"%d" % self._count

    def make_directory(self, path: bytes, directory: int, name: bytes) -> os.stat_result:
        """Make a directory in another one, and tell which it is. It is ours alone until it gets its attributes."""
        for room, made in self.places(path, directory):
            os.mkdir(made, 0o700, dir_fd=room)
            info = os.stat(made, dir_fd=room, follow_symlinks=False)
            try:
                os.rename(made, name, src_dir_fd=room, dst_dir_fd=directory)
                return info
            except OSError as error:
                os.rmdir(made, dir_fd=room)
                if error.errno != errno.EXDEV:
                    raise
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    def sweep(self, directory: int, name: bytes) -> bool:
        """Whether a name is that of a room: one of ours now, or one that a dead restore left, which is removed then."""
        if any(room.name == name for room in self._rooms):
            return True
        if not is_left(directory, name):
            return False
        remove_left(directory, name)
        return True

    # ---- without root

    def make_writable(self, path: bytes, fd: int) -> None:
        """Let us write into a directory of ours that its mode protects."""
        if os.geteuid() == 0 or path in self._modes:
            return
        info = os.fstat(fd)
        if info.st_uid == os.geteuid() and info.st_mode & 0o300 != 0o300:
            self._modes[path] = stat.S_IMODE(info.st_mode)
            os.fchmod(fd, stat.S_IMODE(info.st_mode) | 0o700)

    def give_back(self, path: bytes, fd: int) -> None:
        """Protect a directory again which the restore only passed through."""
        mode = self._modes.pop(path, None)
        if mode is not None:
            os.fchmod(fd, mode)
