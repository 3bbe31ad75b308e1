# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""A remote in a directory: another disk, a NAS, an NFS mount.

An object is a file. It is written below `.tmp/`, synced, and gets its name by link(2), which fails if the name is taken. A file system without
hard links has renameat2(2) with RENAME_NOREPLACE, or neither: then the remote is TIMED. Other hosts write to the same directory, so no
symbolic link below it is followed. Files and directories get the permissions of the remote's own directory, without those for others.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import os
import secrets
import stat
import threading
import typing as t

from .._base import NoRemote, RemoteError, RemoteFull, RemoteRefused, RemoteUnreachable, create_file, files, kernel, open_directory, open_file, reason, show
from .pace import Pace
from .transport import EXCLUSIVE, MOST, NAME, TIMED, Abilities, Entry, too_large

_TEMPORARY = ".tmp"
#: A file below `.tmp` that is older than this, in seconds, is of a push that was killed.
_OLD = 86400
_RACERS = 8
_PIECE = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_AWAY = (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EREMOTEIO)
#: What link(2) and renameat2(2) say where a file system does not have them.
_LACKING = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class Directory:
    """A remote below a directory that exists. See `transport.Transport` for its verbs.

    :param pace: limits how fast objects are written.
    """

    def __init__(self, path: str, pace: t.Optional[Pace] = None) -> None:
        self.where = f"file://{show(path)}"
        self.commit, self.oldest = EXCLUSIVE, False
        self._path, self.pace = path, pace or Pace()
        self._swept = False
        self._lock = threading.Lock()

    # ---- verbs

    def create(self, name: str, data: bytes) -> bool:
        with self._errors("written"), self._top() as top, self._written(top, data) as (temporary, beside):
            parent = t.cast(int, self._parent(top, name, make=True))
            try:
                if not self._give_name(temporary, beside, parent, os.path.basename(name)):
                    return False
                os.fsync(parent)
                return True
            finally:
                os.close(parent)

    def put(self, name: str, data: bytes) -> None:
        with self._errors("written"), self._top() as top, self._written(top, data) as (temporary, beside):
            parent = t.cast(int, self._parent(top, name, make=True))
            try:
                os.rename(beside, os.path.basename(name), src_dir_fd=temporary, dst_dir_fd=parent)
                os.fsync(parent)
            finally:
                os.close(parent)

    def get(self, name: str, start: int = 0, length: t.Optional[int] = None) -> t.Optional[bytes]:
        with self._errors("read"), self._top() as top:
            fd = self._open(top, name)
            if fd is None:
                return None
            try:
                size = os.fstat(fd).st_size
                if min(size - start, size if length is None else length) > MOST:
                    raise too_large(self.where, name)
                wanted = max(min(size - start, size if length is None else length), 0)
                data = os.pread(fd, wanted, start)
                while len(data) < wanted:
                    more = os.pread(fd, wanted - len(data), start + len(data))
                    if not more:
                        raise RemoteUnreachable(f"{self.where}: {name} ended before its {size} bytes; check the file system, then run again.")
                    data += more
                self.pace.received(len(data))
                return data
            finally:
                os.close(fd)

    def head(self, name: str) -> t.Optional[Entry]:
        with self._errors("read"), self._top() as top:
            fd = self._open(top, name)
            if fd is None:
                return None
            try:
                info = os.fstat(fd)
            finally:
                os.close(fd)
            return Entry(name, info.st_size, info.st_mtime)

    def list(self, prefix: str, after: str = "") -> t.Iterator[Entry]:
        with self._errors("listed"), self._top() as top:
            yield from self._walk(top, "", prefix, after)

    def delete(self, names: t.Iterable[str]) -> None:
        with self._errors("removed"), self._top() as top:
            for name in names:
                parent = self._parent(top, name)
                if parent is None:
                    continue
                try:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(os.path.basename(name), dir_fd=parent)
                finally:
                    os.close(parent)

    def now(self) -> float:
        """The time that the file system gives to a new file: on NFS that of the server."""
        with self._errors("written"), self._top() as top, self._written(top, b"-") as (temporary, beside):
            return os.lstat(beside, dir_fd=temporary).st_mtime

    def probe(self) -> Abilities:
        place = f"probe/{secrets.token_hex(8)}"
        try:
            single = self.create(f"{place}/twice", b"1") and not self.create(f"{place}/twice", b"2") and self.get(f"{place}/twice") == b"1"
            with concurrent.futures.ThreadPoolExecutor(_RACERS) as pool:
                won = list(pool.map(lambda number: self.create(f"{place}/race", b"%d" % number), range(_RACERS)))
            exclusive = single and won.count(True) == 1 and self.get(f"{place}/race") == b"%d" % won.index(True)
        finally:
            self.delete([f"{place}/twice", f"{place}/race"])
            with self._top() as top:
                for empty in (place, "probe"):
                    with contextlib.suppress(OSError):
                        os.rmdir(empty, dir_fd=top)
        return Abilities(EXCLUSIVE if exclusive else TIMED, checks_upload=False, ranges=True)

    # ---- files

    @contextlib.contextmanager
    def _errors(self, done: str) -> t.Iterator[None]:
        """An error of the system as one of a remote. :param done: what could not be done, as in "could not be written"."""
        try:
            yield
        except OSError as error:
            message = f"{self.where} could not be {done}: {reason(error)}"
            if error.errno in _FULL:
                raise RemoteFull(f"{message}; free space there, then run again.") from None
            if error.errno in _REFUSED:
                raise RemoteRefused(f"{message}; give this user write access to the directory, then run again.") from None
            if error.errno in _AWAY:
                raise RemoteUnreachable(f"{message}; check the mount, then run again.") from None
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise RemoteError(f"{message}; a remote has only files and directories: find out what wrote there.") from None
            raise RemoteError(f"{message}; fix that, then run again.") from None

    @contextlib.contextmanager
    def _top(self) -> t.Iterator[int]:
        try:
            fd = open_directory(self._path, follow=True)
        except (FileNotFoundError, NotADirectoryError):
            raise NoRemote(f"{self.where}: there is no such directory; mount it or create it, then run again.") from None
        try:
            yield fd
        finally:
            os.close(fd)

    def _parent(self, top: int, name: str, make: bool = False) -> t.Optional[int]:
        """A descriptor of the directory of a name; None where it does not exist. :param make: it and those above it are made, so there is one."""
        if not NAME.match(name):
            raise RemoteError(f"{self.where}: {show(name)} cannot be the name of an object; report this error.")
        here = os.dup(top)
        try:
            for part in name.split("/")[:-1]:
                try:
                    below = open_directory(part, here)
                except (FileNotFoundError, NotADirectoryError) as error:
                    if not make:
                        os.close(here)
                        return None
                    if not isinstance(error, FileNotFoundError):
                        raise
                    below = self._make(top, part, here)
                above, here = here, below
                os.close(above)
        except BaseException:
            os.close(here)
            raise
        return here

    @staticmethod
    def _make(top: int, name: str, parent: int) -> int:
        """A directory that may be made by another host at the same time, durably."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent)
            fd = open_directory(name, parent)
            try:
                mode = os.fstat(fd).st_mode & 0o7000 | os.fstat(top).st_mode & 0o770 | 0o700
                if mode != stat.S_IMODE(os.fstat(fd).st_mode):
                    with contextlib.suppress(PermissionError):  # where it has the set-group-id bit, a hardened unit may not
                        os.fchmod(fd, mode)
            finally:
                os.close(fd)
            os.fsync(parent)
        return open_directory(name, parent)

    @contextlib.contextmanager
    def _written(self, top: int, data: bytes) -> t.Iterator[t.Tuple[int, str]]:
        """A new, synced file with these bytes: a descriptor of its directory, and its name there. It ends with the context unless it was renamed."""
        temporary = self._make(top, _TEMPORARY, top)
        try:
            beside = secrets.token_hex(16)
            fd = create_file(beside, directory=temporary)
            try:
                try:
                    os.fchmod(fd, os.fstat(top).st_mode & 0o660 | 0o600)
                    self._write(fd, data)
                    self._sweep(temporary, os.fstat(fd).st_mtime)
                finally:
                    os.close(fd)
                yield temporary, beside
            finally:
                with contextlib.suppress(OSError):
                    os.unlink(beside, dir_fd=temporary)
        finally:
            os.close(temporary)

    def _write(self, fd: int, data: bytes) -> None:
        view = memoryview(data)
        for start in range(0, len(view), _PIECE):
            piece = view[start : start + _PIECE]
            self.pace(len(piece))
            files.write_all(fd, piece)
        os.fsync(fd)

    def _sweep(self, temporary: int, now: float) -> None:
        """Remove what killed pushes left, once. :param now: by the clock of the file system."""
        with self._lock:
            swept, self._swept = self._swept, True
        for name in () if swept else os.listdir(temporary):
            with contextlib.suppress(OSError):
                if now - os.lstat(name, dir_fd=temporary).st_mtime > _OLD:
                    os.unlink(name, dir_fd=temporary)

    @staticmethod
    def _give_name(temporary: int, beside: str, parent: int, name: str) -> bool:
        """Give a file its name unless that is taken."""
        try:
            os.link(beside, name, src_dir_fd=temporary, dst_dir_fd=parent, follow_symlinks=False)
            return True
        except FileExistsError:
            # on NFS the answer to a request can be lost, and the request is sent again
            return os.lstat(beside, dir_fd=temporary).st_nlink == 2
        except OSError as error:
            if error.errno not in _LACKING:
                raise
        try:
            kernel.rename_new(beside, name, temporary, parent)
            return True
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _LACKING:
                raise
        with contextlib.suppress(FileNotFoundError):  # two writers at this moment both succeed: a probe calls that TIMED
            os.lstat(name, dir_fd=parent)
            return False
        os.rename(beside, name, src_dir_fd=temporary, dst_dir_fd=parent)
        return True

    def _open(self, top: int, name: str) -> t.Optional[int]:
        """A descriptor of an object's file; None where there is none."""
        parent = self._parent(top, name)
        if parent is None:
            return None
        try:
            fd = open_file(os.path.basename(name), directory=parent)
        except FileNotFoundError:
            return None
        finally:
            os.close(parent)
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
        return None

    def _walk(self, fd: int, path: str, prefix: str, after: str) -> t.Iterator[Entry]:
        """The objects below a directory, in the order of their whole names: `a-b` comes before `a/b`."""
        found = []
        with os.scandir(fd) as entries:
            for entry in entries:
                if entry.name[:1] == "." or not NAME.match(entry.name):
                    continue
                found.append(f"{path}{entry.name}/" if entry.is_dir(follow_symlinks=False) else f"{path}{entry.name}")
        for name in sorted(found):
            if name[-1] != "/":
                if name.startswith(prefix) and name > after:
                    with contextlib.suppress(FileNotFoundError):
                        info = os.lstat(name[len(path) :], dir_fd=fd)
                        if stat.S_ISREG(info.st_mode):
                            yield Entry(name, info.st_size, info.st_mtime)
            elif (name.startswith(prefix) or prefix.startswith(name)) and not (name < after and not after.startswith(name)):
                with contextlib.suppress(FileNotFoundError):
                    below = open_directory(name[len(path) : -1], fd)
                    try:
                        yield from self._walk(below, name, prefix, after)
                    finally:
                        os.close(below)
