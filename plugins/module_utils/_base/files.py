# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Small files where others may have created something: one way to open, read, write and sync them.

Every open of the engine uses `open_file` or `open_directory`: a symbolic link at the last name of the path is not followed, a
fifo without a writer does not block, a terminal does not become ours, and no child inherits the descriptor. Source: open(2).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import sys
import time
import typing as t

from . import kernel
from .errors import Damaged, StoreError, UsageError, reason

Path = t.Union[str, bytes]


class Unsuitable(OSError):
    """The name is not a regular file, or the file is too long."""


_SAFE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
#: What `write_file` leaves where it is killed.
LEFTOVER_NAME = re.compile(r"\..+\.\d+\.tmp\Z")
#: What says that this process, and not the file, lacks something.
_SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
#: What a file system or kernel says that lacks a way to give names.
_NO_SUCH_CALL = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_openat2 = True  # until the kernel says otherwise


def open_file(path: Path, flags: int = os.O_RDONLY, directory: t.Optional[int] = None) -> int:
    """A descriptor of this name; ELOOP if it is a symbolic link. It may be of any other type: see `is_regular`.

    :param flags: as of open(2), beyond those that every open has. :param directory: a descriptor that a relative path starts from.
    """
    return os.open(path, flags | _SAFE, 0o600, dir_fd=directory)


def open_directory(path: Path, directory: t.Optional[int] = None, follow: bool = False, flags: int = 0) -> int:
    """A descriptor of a directory; ENOTDIR for anything else.

    :param follow: also through a symbolic link at the last name, for paths that a user gives.
    """
    return os.open(path, _DIRECTORY | flags | (0 if follow else os.O_NOFOLLOW), dir_fd=directory)


def open_on_mount(name: Path, directory: int) -> int:
    """A descriptor of a directory in another; EXDEV if something is mounted on it, ELOOP or ENOTDIR if it is not a directory.

    Where the kernel has no openat2(2), the mount ids of the two are compared, which is as safe and slower.
    """
    global _openat2
    if _openat2:
        try:
            return kernel.open_on_mount(name, directory, _DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno not in kernel.NO_OPENAT2:
                raise
            _openat2 = False
    fd = open_directory(name, directory)
    if mount_id(fd) != mount_id(directory):
        os.close(fd)
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
    return fd


def mount_id(fd: int) -> int:
    """The id of the mount that an open file was reached through (proc_pid_fdinfo(5)); it is the first field of mountinfo, too.

    Two mounts of one file system have different ids. OSError if /proc does not have it.
    """
    with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
        for line in file:
            if line.startswith(b"mnt_id:"):
                return int(line[7:])
    raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))


def open_real(path: bytes, top: int = -1, flags: int = 0) -> int:
    """A descriptor of a directory by a path without symbolic links: ELOOP or ENOTDIR if it contains one now.

    :param top: a descriptor of the directory that the path starts from; -1 for the root directory.
    :param flags: O_PATH for a directory that need not be readable; only names below it can be reached by the descriptor then.
    """
    names = [name for name in path.split(b"/") if name]
    fd = os.open(b"/", _DIRECTORY) if top < 0 else os.dup(top)
    try:
        for number, name in enumerate(names, 1):
            # those on the way need not be readable
            above, fd = fd, open_directory(name, fd, flags=flags if number == len(names) else os.O_PATH)
            os.close(above)  # a signal before it leaves it open; after it, the name would be that of a closed one
    except BaseException:
        os.close(fd)
        raise
    return fd


def exposed(path: str) -> t.Optional[str]:
    """The first directory on a real path, itself included, whose names users other than us and root can replace; None if there is none.

    In a directory with the sticky bit, users can only replace their own files.
    """
    here = ""
    for part in path.rstrip("/").split("/"):
        here = f"{here}{part}/"
        info = os.stat(here)
        writers = stat.S_IWOTH | (stat.S_IWGRP if info.st_gid not in (0, os.getegid()) else 0)
        if info.st_uid not in (0, os.geteuid()) or info.st_mode & writers and not info.st_mode & stat.S_ISVTX:
            return here.rstrip("/") or "/"
    return None


def create_file(path: Path, directory: t.Optional[int] = None, mode: int = 0o600) -> int:
    """A descriptor of a new, empty file that can be read and written; EEXIST if the name is taken."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=directory)


def create_nameless(directory: int) -> int:
    """A descriptor of a new file without a name, which ends with it; OSError if the file system does not support that (O_TMPFILE)."""
    return os.open(b".", os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600, dir_fd=directory)


class Closing:
    """A context for a descriptor, which is closed at its end."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_exception: object) -> None:
        os.close(self._fd)


def is_regular(fd: int) -> bool:
    """Whether an open file is a regular one."""
    return stat.S_ISREG(os.fstat(fd).st_mode)


def is_private(fd: int) -> bool:
    """Whether an open directory belongs to this user, and no other user may enter it."""
    info = os.fstat(fd)
    return info.st_uid == os.geteuid() and not info.st_mode & 0o077


def read_file(path: Path, most: int, directory: t.Optional[int] = None) -> bytes:
    """The bytes of a regular file; Unsuitable for anything else and for more than `most` bytes, OSError for an error of the system."""
    try:
        fd = open_file(path, directory=directory)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Unsuitable("it is a symbolic link, which is not followed") from None
        raise
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise Unsuitable("it is not a regular file")
        data = os.read(fd, min(info.st_size, most) + 1)  # all of it, as a rule
        more = data if len(data) != info.st_size else b""
        while more and len(data) <= most:
            more = os.read(fd, most + 1 - len(data))
            data += more
        if len(data) > most:
            raise Unsuitable(f"it has more than {most} bytes")
        return data
    finally:
        os.close(fd)


def read_stored(path: str, most: int) -> bytes:
    """The same of a file that only volt.backup writes: Damaged if it is not such a file, FileNotFoundError if it does not exist."""
    try:
        return read_file(path, most)
    except FileNotFoundError:
        raise
    except PermissionError as error:
        raise UsageError(f"{path} cannot be read: {reason(error)}; run as the user that owns it.") from None
    except OSError as error:
        if error.errno in _SHORT:
            raise StoreError(f"{path} cannot be opened now: {reason(error)}; try again when the host has free resources.") from None
        raise Damaged(f"{path} cannot be read: {reason(error)}.") from None


def write_file(
    path: str,
    data: t.Union[bytes, t.Iterable[t.Any]],
    exclusive: bool = False,
    mode: int = 0o600,
    owner: t.Optional[t.Tuple[int, int]] = None,
    beside: str = "",
) -> None:
    """Write a small file completely and durably, or not at all: beside, sync, rename, sync the directory.

    :param data: its bytes, or the pieces that they are made of.
    :param exclusive: FileExistsError if the name is taken already, even by another process that takes it at this moment.
    :param mode: its mode from the first moment under its name. :param owner: the same, user and group; None for ours.
    :param beside: the name under which it is written first, so that a later write removes what a killed one left. One writer at a time then.
    """
    beside = beside or os.path.join(os.path.dirname(path), f".{os.path.basename(path)[:200]}.{os.getpid()}.tmp")
    try:
        quietly(os.unlink, beside)  # what a run of the same number left; or what another user put there for us to write to
        with Closing(create_file(beside)) as fd:
            for piece in (data,) if isinstance(data, bytes) else data:
                write_all(fd, piece)
            if owner is not None and owner != (os.geteuid(), os.getegid()):
                os.fchown(fd, *owner)
            if mode != 0o600:
                os.fchmod(fd, mode)
            os.fsync(fd)
        if exclusive:
            give_name(beside, path)
        else:
            os.rename(beside, path)
    except BaseException:
        quietly(os.unlink, beside)
        raise
    sync_directory(os.path.dirname(path))


def copy_small(source: str, path: str, most: int) -> None:
    """Copy a regular file of at most so many bytes to a new one, for as long as this process lives: nothing is synced."""
    data = read_file(source, most)
    with Closing(create_file(path)) as fd:
        write_all(fd, data)


def foresee_write(path: str) -> None:
    """OSError if `write_file`, or the removal of a file, would fail for its directory. Writes nothing."""
    place = os.path.dirname(path)
    while not os.path.lexists(place):  # it would be made
        place = os.path.dirname(place)
    if not os.path.isdir(place):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), place)
    if not os.access(place, os.W_OK | os.X_OK):
        code = errno.EROFS if os.statvfs(place).f_flag & os.ST_RDONLY else errno.EACCES
        raise OSError(code, os.strerror(code), path)


def give_name(beside: str, path: str) -> None:
    """Give a file its name unless another file has it.

    Where a file system has neither hard links nor RENAME_NOREPLACE, two may take the name at one moment, and the later one has it.
    """
    try:
        os.link(beside, path)
    except OSError as error:
        if error.errno == errno.EEXIST and os.path.samestat(os.lstat(beside), os.lstat(path)):
            os.unlink(beside)  # on NFS the answer to a request can be lost, and the request is sent again
            return
        if error.errno not in _NO_SUCH_CALL:
            raise
    else:
        os.unlink(beside)
        return
    try:
        kernel.rename_new(beside, path, kernel.AT_FDCWD, kernel.AT_FDCWD)
    except OSError as error:
        if error.errno not in _NO_SUCH_CALL:
            raise
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from None
        os.rename(beside, path)


def write_all(fd: int, data: t.Any) -> None:
    """Write every byte: usually one call, more if the kernel writes less."""
    written = os.write(fd, data)
    if written != len(data):
        view = memoryview(data)
        while written < len(view):
            written += os.write(fd, view[written:])


def sync_directory(path: str) -> None:
    """Make the names in a directory durable."""
    with Closing(open_directory(path, follow=True)) as fd:
        os.fsync(fd)


def unlink(path: Path, directory: t.Optional[int] = None) -> bool:
    """Remove a file; False if another run has done so meanwhile. :param directory: a descriptor that a relative path starts from."""
    try:
        os.unlink(path, dir_fd=directory)
    except FileNotFoundError:
        return False
    return True


def is_gone(path: Path) -> bool:
    """Whether there is nothing of this name. Where that cannot be told, there may be something; `os.path.lexists` says that there is nothing then."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass
    return False


def quietly(call: t.Callable[[str], t.Any], path: str) -> None:
    """Call something that may fail: a later run removes the same files."""
    with contextlib.suppress(OSError):
        call(path)


def names_in(directory: str) -> t.List[str]:
    """The names in a directory of derived files; nothing if it cannot be listed."""
    try:
        return os.listdir(directory)
    except OSError:
        return []


def list_stored(directory: str) -> t.List[str]:
    """The names in a directory that only volt.backup writes; none where there is no such directory, StoreError where it cannot be listed: that is not
    the same."""
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StoreError(f"{directory} cannot be listed: {reason(error)}; fix that, then run again.") from None


def sweep(directory: str, age: float) -> None:
    """Remove files from a directory that a killed `write_file` left, if they are older than so many seconds."""
    for name in names_in(directory):
        path = os.path.join(directory, name)
        try:
            if LEFTOVER_NAME.match(name) and time.time() - os.lstat(path).st_mtime > age:
                os.unlink(path)
        except OSError:
            continue


def close_all_but(*kept: int) -> None:
    """In a forked process: close all descriptors from 3 on but these, and that of the archive from which modules may still be imported."""
    archive = re.fullmatch(r"/proc/self/fd/([0-9]+)", sys.path[0])  # see _runner/archive.py
    first = 3
    for fd in sorted({*kept, *map(int, archive.groups() if archive else ())}):
        os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))
