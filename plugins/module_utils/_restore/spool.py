# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""What a restore has fetched and may need again: parts of files, in a private directory beside the target, or in memory.

::

    .NAME.volt-fetched/       beside the target; kept when the restore is cut off, so that the next one fetches only the rest
        <key>-<offset>        a part of the file that the key names

What is read from here is hashed by the reader, so a file that a power cut tore costs only another fetch. A restore that ends well removes the
directory, whatever the backup comes from. What a sealed remote has is not sealed here.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import threading
import typing as t

from .._base import Closing, files
from .rooms import is_marked, mark
from .target import Target

#: Bytes that are kept in memory, where there is no directory.
ROOM = 64 << 20
#: Bytes that are left free on the file system, beside what the restore needs.
_SPARE = 64 << 20
_NAME = re.compile(r"([0-9a-f]{64})-(\d+)\Z")


def _name(target: Target) -> bytes:
    return b"." + target.name[:200] + b".volt-fetched"


class Spool:
    """Parts of files. Any thread may use it.

    :ivar needed: bytes that the restore will write beside it.
    """

    def __init__(self) -> None:
        self._fd = -1
        self._lock = threading.Lock()
        self._memory: t.Dict[t.Tuple[str, int], bytes] = {}  # in the order in which they came
        self._size = 0
        self.needed = 0

    def open(self, target: Target) -> t.List[t.Tuple[str, int, int]]:
        """Use the directory beside a target, which is made where it is missing. What an earlier restore has left there: key, offset, length.

        Where that cannot be, all stays in memory.
        """
        with contextlib.suppress(OSError):
            self._fd = _directory(target, True)
            return list(self._left())
        return []

    @property
    def on_disk(self) -> bool:
        """Whether what is written goes to a directory."""
        return self._fd >= 0 and not self._memory

    def close(self) -> None:
        """Keep what is in the directory."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _left(self) -> t.Iterator[t.Tuple[str, int, int]]:
        for name in os.listdir(self._fd):
            match = _NAME.match(name)
            if match:
                yield match[1], int(match[2]), os.stat(name, dir_fd=self._fd, follow_symlinks=False).st_size
            elif name.startswith("new-"):
                os.unlink(name, dir_fd=self._fd)  # of a restore that died: the target's lock is ours

    def write(self, key: str, offset: int, pieces: t.Callable[[], t.Iterator[bytes]], size: int) -> int:
        """Keep a part; its size. :param pieces: begins to give its bytes. :param size: how many there are, at most."""
        if self._fd >= 0 and self._has_space(size):
            with contextlib.suppress(OSError):
                return self._write(key, offset, pieces())
        data = b"".join(pieces())
        with self._lock:
            self._memory[key, offset] = data
            self._size += len(data)
            while self._size > ROOM and len(self._memory) > 1:
                self._size -= len(self._memory.pop(next(iter(self._memory))))
        return len(data)

    def _has_space(self, size: int) -> bool:
        info = os.fstatvfs(self._fd)
        return info.f_bavail * info.f_frsize > self.needed + size + _SPARE

    def _write(self, key: str, offset: int, pieces: t.Iterator[bytes]) -> int:
        new = f"new-{secrets.token_hex(8)}"
        fd = files.create_file(new, self._fd)
        try:
            size = 0
            for piece in pieces:
                files.write_all(fd, piece)
                size += len(piece)
            os.rename(new, f"{key}-{offset}", src_dir_fd=self._fd, dst_dir_fd=self._fd)
            return size
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(new, dir_fd=self._fd)
            raise
        finally:
            os.close(fd)

    def read(self, key: str, offset: int, start: int, length: int) -> t.Optional[bytes]:
        """A range of a part; None where the part is not here any more. :param start: from the beginning of the part."""
        with self._lock:
            found = self._memory.get((key, offset))
        if found is not None:
            return found[start : start + length]
        if self._fd < 0:
            return None
        try:
            fd = files.open_file(f"{key}-{offset}", directory=self._fd)
        except OSError:
            return None
        with Closing(fd):
            return os.pread(fd, length, start)

    def drop(self, key: str, offset: int) -> None:
        """Forget a part, which is not what it should be."""
        with self._lock:
            self._size -= len(self._memory.pop((key, offset), b""))
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.unlink(f"{key}-{offset}", dir_fd=self._fd)


def _directory(target: Target, make: bool) -> int:
    """A descriptor of the directory beside a target; OSError where there is none, or what has its name is not ours."""
    name = _name(target)
    if make:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=target.parent)
    fd = files.open_directory(name, target.parent)
    try:
        if not (files.is_private(fd) and is_marked(fd, target.name)):
            raise FileExistsError(name)
        if make and not os.listdir(fd):
            mark(fd, target.name)
        return fd
    except BaseException:
        os.close(fd)
        raise


def sweep(target: Target) -> None:
    """Remove what restores to this target have fetched."""
    with contextlib.suppress(OSError):
        with Closing(_directory(target, False)) as fd:
            for name in os.listdir(fd):  # by the descriptor: another user may exchange the name at any time
                os.unlink(name, dir_fd=fd)
        os.rmdir(_name(target), dir_fd=target.parent)
