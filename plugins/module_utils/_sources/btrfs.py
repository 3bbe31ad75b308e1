# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Snapshots of Btrfs subvolumes, by ioctl(2): no program is needed.

A snapshot lies in the directory .volt-snapshots of the root of the subvolume, which is made once and stays, so that no other directory changes with each
run. A run locks its snapshots; what is not locked was left by a run that was killed, and the next one removes it. Snapshots of other programs have other
names and other places. Source: the kernel's uapi/linux/btrfs.h.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import struct
import typing as t

from .._base import kernel, open_directory
from .._fs.mounts import SNAPSHOTS, SUBVOLUME

#: How the names of our snapshots begin.
_OURS = b"volt-"
_NAME = re.compile(rb"volt-[0-9a-f]{16}-[0-9]+\Z")
_READ_ONLY = 2
_KIND, _SIZE = 0x94, 4096
_SNAP_CREATE_V2, _SNAP_DESTROY = (kernel.ioctl_number(False, True, _KIND, number, _SIZE) for number in (23, 15))
_SUBVOL_GETFLAGS = kernel.ioctl_number(True, False, _KIND, 25, 8)
_ROOTREFS, _LOOKUP_USER = (kernel.ioctl_number(True, True, _KIND, number, _SIZE) for number in (61, 62))
_REF = struct.Struct("=QQ")
_REFS_MOST = 255


def top_of(path: bytes, floor: bytes) -> t.Optional[bytes]:
    """The root of the subvolume that a directory is in; None if it is above `floor`, the mount point."""
    device = os.stat(path).st_dev
    while True:
        info = os.stat(path)
        if info.st_dev != device:
            return None
        if info.st_ino == SUBVOLUME:
            return path
        if path == floor or path == b"/":
            return None
        path = os.path.dirname(path)


def is_read_only(path: bytes) -> bool:
    """Whether a subvolume cannot change. :param path: its root."""
    with _opened(path) as fd:
        flags = bytearray(8)
        fcntl.ioctl(fd, _SUBVOL_GETFLAGS, flags)
    return bool(struct.unpack("=Q", flags)[0] & _READ_ONLY)


def nested(top: bytes) -> t.List[bytes]:
    """Paths, relative to the root of a subvolume, of all subvolumes below it."""
    found: t.List[bytes] = []
    todo = [b""]
    while todo:
        here = todo.pop()
        with contextlib.suppress(FileNotFoundError):
            for path in _children(os.path.join(top, here)):
                below = os.path.join(here, path)
                if below.split(b"/")[-2:-1] != [SNAPSHOTS]:
                    todo.append(below)
                    found.append(below)
    return sorted(found)


def _children(top: bytes) -> t.Iterator[bytes]:
    with _opened(top) as fd:
        least = 0
        while True:
            refs = bytearray(4096)
            refs[:8] = struct.pack("=Q", least)
            more = False
            try:
                fcntl.ioctl(fd, _ROOTREFS, refs)
            except OSError as error:
                if error.errno != errno.EOVERFLOW:
                    raise
                more = True  # than one answer has room for
            items = [_REF.unpack_from(refs, 8 + 16 * number) for number in range(refs[8 + 16 * _REFS_MOST])]
            for tree, directory in items:
                answer = bytearray(4096)
                answer[:16] = _REF.pack(directory, tree)
                fcntl.ioctl(fd, _LOOKUP_USER, answer)
                name, path = bytes(answer[16:272]).split(b"\0")[0], bytes(answer[272:]).split(b"\0")[0]
                yield path + name
            if not more or not items:
                return
            least = items[-1][0] + 1


@contextlib.contextmanager
def snapshot(top: bytes, below: t.Sequence[bytes]) -> t.Iterator[t.Dict[bytes, int]]:
    """Read-only snapshots of a subvolume and of some below it; descriptors of their roots, by the paths of the subvolumes. They are gone when the context
    ends.

    :param top: the root of the subvolume. :param below: relative paths of the others.
    """
    made: t.List[t.Tuple[bytes, int]] = []
    with _place(os.path.join(top, SNAPSHOTS)) as directory:
        try:
            with _turn(directory):
                _sweep(directory)
                run = os.urandom(8).hex().encode()
                found = {}
                for number, path in enumerate([b"", *below]):
                    name = b"%s%s-%d" % (_OURS, run, number)
                    with _opened(os.path.join(top, path) if path else top) as fd:
                        _create(directory, name, fd)
                    made.append((name, -1))
                    made[-1] = (name, open_directory(name, directory))
                    fcntl.flock(made[-1][1], fcntl.LOCK_EX)
                    found[path] = made[-1][1]
            yield found
        finally:
            for name, fd in reversed(made):
                if fd >= 0:
                    os.close(fd)
                _destroy(directory, name)


def tidy(place: bytes) -> None:
    """Make the directory of snapshots, if it is missing, and remove those of runs that were killed."""
    with _place(place) as directory, _turn(directory):
        _sweep(directory)


@contextlib.contextmanager
def _place(path: bytes) -> t.Iterator[int]:
    """The directory of snapshots, made if it is missing; PermissionError for one that another user made or can write to."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    with _opened(path) as directory:
        info = os.fstat(directory)
        if info.st_uid != os.geteuid() or info.st_mode & 0o077:
            raise PermissionError(errno.EPERM, f"{os.fsdecode(SNAPSHOTS)} belongs to another user")
        yield directory


def _sweep(directory: int) -> None:
    for name in os.listdir(directory):
        if _NAME.match(os.fsencode(name)):
            with contextlib.suppress(OSError):
                fd = open_directory(name, directory)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                finally:
                    os.close(fd)
                _destroy(directory, os.fsencode(name))


@contextlib.contextmanager
def _turn(directory: int) -> t.Iterator[None]:
    """A snapshot is locked a moment after it is made. No other run sweeps in between."""
    fcntl.flock(directory, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(directory, fcntl.LOCK_UN)


def _create(directory: int, name: bytes, subvolume: int) -> None:
    fcntl.ioctl(directory, _SNAP_CREATE_V2, bytearray(struct.pack("=qQQ32x4040s", subvolume, 0, _READ_ONLY, name)))


def _destroy(directory: int, name: bytes) -> None:
    fcntl.ioctl(directory, _SNAP_DESTROY, bytearray(struct.pack("=q4088s", 0, name)))


@contextlib.contextmanager
def _opened(path: bytes) -> t.Iterator[int]:
    fd = open_directory(path)
    try:
        yield fd
    finally:
        os.close(fd)
