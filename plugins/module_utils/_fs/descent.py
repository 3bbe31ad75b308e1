# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Moving in directories that others may change: by descriptor, one name at a time, never through a symlink."""

from __future__ import annotations

import errno
import os
import time
import typing as t

from .._base import VoltError, files, open_directory
from .._format import chunks

#: Descriptors kept of a path; trees may be deeper than a process may have files open.
_KEEP = 128

Item = t.Tuple[str, os.stat_result]
#: In a directory with more entries than this, stats are kept without the fields that are not used.
_LARGE = 20_000
#: Takes what cannot be looked at, and why.
Failed = t.Callable[[bytes, OSError], None]


def listing(
    fd: int,
    omit: t.Optional[t.Callable[[os.DirEntry[str]], bool]] = None,
    failed: t.Optional[Failed] = None,
    into: t.Optional[t.List[Item]] = None,
) -> t.Tuple[t.List[Item], t.List[bytes]]:
    """A directory's entries with their stats, in byte order of their names, and the names as bytes.

    What vanishes between listing and stat is left out.

    :param omit: called before an entry is read, with its name and the type from the listing; True skips it.
    :param failed: called for each entry that cannot be read and is skipped; None: the OSError is raised.
    :param into: an empty list to be filled and returned; one who looks on sees it grow.
    """
    items: t.List[Item] = [] if into is None else into
    append = items.append
    with os.scandir(fd) as entries:
        found = [entry.name for entry in entries if omit is None or not omit(entry)]
    # looked at in their order: so what is kept of neighbours lies together, and its memory is used again once they are done
    found.sort(key=None if "".join(found).isascii() else os.fsencode)  # text order differs from byte order if names are not UTF-8
    same: t.Dict[int, int] = {}
    for name in found:
        try:
            info = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            continue
        except OSError as error:
            if failed is None:
                raise
            failed(os.fsencode(name), error)
        else:
            append((name, info if len(items) < _LARGE else _slim(info, same)))
    if len(items) < len(found):
        found = [item[0] for item in items]
    return items, os.fsencode("\0".join(found)).split(b"\0") if items else []


def _slim(info: os.stat_result, same: t.Dict[int, int]) -> os.stat_result:
    """A stat in half of the memory: without access time, times in seconds, and size of blocks. :param same: numbers that many have, kept once."""
    fields = (same.setdefault(info.st_mode, info.st_mode), info.st_ino, same.setdefault(info.st_dev, info.st_dev), info.st_nlink, info.st_uid, info.st_gid)
    more = {"st_mtime_ns": info.st_mtime_ns, "st_ctime_ns": info.st_ctime_ns, "st_blocks": info.st_blocks, "st_rdev": info.st_rdev}
    return os.stat_result((*fields, info.st_size, 0, 0, 0), more)


class Moved(VoltError):
    """A directory was moved after we entered it.

    :ivar depth: how many directories of the trail can still be reached, the root among them.
    """

    code = "moved"

    def __init__(self, depth: int) -> None:
        super().__init__("A directory was moved while it was read; run again when no files are being moved.")
        self.depth = depth


class _Step(t.NamedTuple):
    """A directory of a trail; `fd` is negative if it is not open."""

    fd: int
    device: int
    inode: int
    name: t.Union[str, bytes]


class Trail:
    """The open directories from a root down to the current one."""

    def __init__(self, root: int) -> None:
        """:param root: a descriptor, which the trail closes at its end."""
        info = os.fstat(root)
        self._steps: t.List[_Step] = [_Step(root, info.st_dev, info.st_ino, b"")]

    @property
    def fd(self) -> int:
        """The current directory."""
        return self._steps[-1].fd

    @property
    def depth(self) -> int:
        return len(self._steps)

    def enter(self, name: t.Union[str, bytes], flags: int = 0) -> os.stat_result:
        """Go down, also into a mount; OSError if the name is not a directory, or is a symlink to one."""
        return self._entered(open_directory(name, self.fd, flags=flags), name)

    def enter_on_mount(self, name: t.Union[str, bytes], mount: t.Optional[int] = None) -> os.stat_result:
        """Go down and stay on the mount that we are on; EXDEV if something is mounted there.

        :param mount: the id of the only mount that may be entered, because it was there when the caller checked first.
        """
        if mount is None:
            return self._entered(files.open_on_mount(name, self.fd), name)
        fd = open_directory(name, self.fd)
        if files.mount_id(fd) != mount:
            os.close(fd)
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return self._entered(fd, name)

    def _entered(self, fd: int, name: t.Union[str, bytes]) -> os.stat_result:
        info = os.fstat(fd)
        self._steps.append(_Step(fd, info.st_dev, info.st_ino, name))
        old = len(self._steps) - _KEEP
        if old > 0 and self._steps[old].fd >= 0:  # the root stays open
            os.close(self._steps[old].fd)
            self._steps[old] = self._steps[old]._replace(fd=-1)
        return info

    def leave(self) -> None:
        """Go up. Moved if the parent directory is now another one; then the trail ends at the last one that can be reached."""
        child = self._steps.pop().fd
        try:
            if self._steps[-1].fd < 0:
                self._open_last(child)
        finally:
            os.close(child)

    def _open_last(self, child: int) -> None:
        """Open the last step again: from below or, if a directory was moved meanwhile, from above, name by name."""
        step = self._steps[-1]
        fd = open_directory("..", child)
        if _is(fd, step):
            self._steps[-1] = step._replace(fd=fd)
            return
        os.close(fd)
        at = max(number for number, above in enumerate(self._steps) if above.fd >= 0)
        fd = os.dup(self._steps[at].fd)
        for number in range(at + 1, len(self._steps)):
            step = self._steps[number]
            try:
                below = open_directory(step.name, fd)
            except OSError:
                below = -1
            if below < 0 or not _is(below, step):
                if below >= 0:
                    os.close(below)
                del self._steps[number:]
                if self._steps[-1].fd < 0:
                    self._steps[-1] = self._steps[-1]._replace(fd=fd)
                else:
                    os.close(fd)
                raise Moved(number)
            os.close(fd)
            fd = below
        self._steps[-1] = step._replace(fd=fd)

    def close(self) -> None:
        while self._steps:
            fd = self._steps.pop().fd
            if fd >= 0:
                os.close(fd)

    def __enter__(self) -> Trail:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


def _is(fd: int, step: _Step) -> bool:
    info = os.fstat(fd)
    return (info.st_dev, info.st_ino) == (step.device, step.inode)


class Patience:
    """A budget of seconds to wait for others, for a whole run."""

    def __init__(self, seconds: float) -> None:
        self._left = seconds

    def wait(self, seconds: float) -> bool:
        """Wait so long; False if the budget is used up."""
        if self._left <= 0:
            return False
        self._left -= seconds
        time.sleep(seconds)
        return True


def open_source(name: str, directory: int, patience: Patience) -> int:
    """Open without changing the access time where we may; never blocks on a fifo put in a file's place.

    A lease (Samba's, an NFS server's) is broken by the attempt; its holder has a while to give the file back (fcntl(2), F_SETLEASE): 45
    seconds by /proc/sys/fs/lease-break-time.
    """
    flags = os.O_RDONLY | os.O_NOATIME
    while True:
        try:
            return files.open_file(name, flags, directory)
        except PermissionError:
            if flags == os.O_RDONLY:
                raise
            flags = os.O_RDONLY  # O_NOATIME is for owners; the rest decides itself
        except BlockingIOError:
            if not patience.wait(0.02):
                raise


def find_holes(fd: int, size: int) -> chunks.Holes:
    """(offset, length) of each hole of an open file of `size` bytes; none if the file system cannot report them."""
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
