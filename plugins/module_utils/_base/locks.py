# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Waiting for kernel locks (flock(2)), which end with the process that holds them.

A kernel lock is on a file, not on its name. If the file is removed or replaced, later processes lock another file. So a lock counts only if the
locked file still has the name. Otherwise it is taken again, on the file that has the name now.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
import typing as t

from . import nfs
from .errors import LockLost, LockTimeout, StoreError, reason, store_errors, store_failure
from .files import Closing, is_regular, open_directory, open_file

_POLL_FIRST, _POLL_MOST = 0.005, 0.1
#: What a file system says that has no locks.
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
#: The file that is locked besides a directory on NFS.
_OF_HOSTS = ".lock"


def wait(fd: int, mode: int, deadline: float, what: str, without: t.Container[t.Optional[int]] = ()) -> None:
    """Take a kernel lock; LockTimeout when the deadline (of time.monotonic) has passed.

    :param without: errors upon which to go on without a lock.
    """
    pause = _POLL_FIRST
    while True:
        try:
            fcntl.flock(fd, mode | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise LockTimeout(
                    f"Another run holds {what}; wait for it to end, or raise `lock_timeout`."
                ) from None
        except OSError as error:
            if error.errno in without:
                return
            raise StoreError(f"Locking {what} failed: {reason(error)}; use a file system that supports file locks.") from None
        time.sleep(pause)
        pause = min(pause * 2, _POLL_MOST)


def is_at(fd: int, path: str) -> bool:
    """Whether an open file is the one that has this name now; a symbolic link at the last name is none."""
    nfs.look_anew(path)  # another host may have replaced it
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StoreError(f"Lock {path} cannot be checked: {reason(error)}; fix that, then run again.") from None


def locked(
    opened: t.Callable[[], t.Optional[int]], path: str, mode: int, deadline: float, what: str, without: t.Container[t.Optional[int]] = ()
) -> t.Optional[int]:
    """A descriptor that is locked while it is open, of the file or directory that has this name; LockTimeout when the deadline has passed.

    :param opened: opens it; where it returns None, so does this. :param without: errors upon which to go on without a lock.
    """
    while True:
        fd = opened()
        if fd is None:
            return None
        try:
            wait(fd, mode, deadline, what, without)
            if is_at(fd, path):
                return fd
            if time.monotonic() >= deadline:
                raise LockTimeout(f"The file of {what} was replaced during the wait; find out what removes it, then run again.")
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # removed or replaced while we waited


def lock_file(path: str, mode: int, deadline: float, what: str, write: bool = True) -> t.Optional[int]:
    """A descriptor of a lock's file, which is locked while it is open; LockTimeout, or StoreError if it cannot be a lock.

    :param write: make the file if there is none. Otherwise None if it does not exist or cannot be opened.
    """
    return locked(lambda: _open(path, write), path, mode, deadline, what)


def _open(path: str, write: bool) -> t.Optional[int]:
    try:
        fd = open_file(path, os.O_RDWR | os.O_CREAT if write else os.O_RDONLY)
    except OSError as error:
        if not write and error.errno in (errno.ENOENT, errno.EACCES):
            return None  # never made, or we may only look: nothing to wait for
        if error.errno in (errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV):
            raise StoreError(f"Lock {path}: {reason(error)}; remove it, then run again. The lock file is created again.") from None
        raise (store_failure(f"opening the lock {path}", error) if write else StoreError(f"Lock {path}: {reason(error)}.")) from None
    if is_regular(fd):
        return fd
    os.close(fd)
    raise StoreError(f"Lock {path}: it is not a regular file; remove it, then run again. The lock file is created again.")


@contextlib.contextmanager
def directory_lock(directory: str, timeout: float, alone: bool = True) -> t.Iterator[None]:
    """Hold a directory's lock for the context, alone or with others that share it; LockTimeout if others keep it.

    On a file system without locks, nothing is held.
    """
    deadline, what = time.monotonic() + timeout, f"the lock of directory {directory}"
    mode = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
    fd = locked(lambda: _open_directory(directory), os.path.realpath(directory), mode, deadline, what, NO_LOCKS)
    with Closing(t.cast(int, fd)), among_hosts(directory, mode, deadline, what, NO_LOCKS):
        yield


@contextlib.contextmanager
def among_hosts(
    directory: str, mode: int, deadline: float, what: str, without: t.Container[t.Optional[int]] = ()
) -> t.Iterator[t.Callable[[], None]]:
    """Besides the lock of a directory: one that other hosts see as well. On NFS no other host sees the lock of a directory, only that of a file.

    It yields a check. The check raises LockLost if the lock is lost.
    """
    if not nfs.is_nfs(directory):
        yield lambda: None
        return
    path = os.path.join(directory, _OF_HOSTS)
    fd = t.cast(int, locked(lambda: _open(path, True), path, mode, deadline, what, without))

    def check() -> None:
        try:
            os.pwrite(fd, b"\n", 0)
            os.fsync(fd)
        except OSError as error:
            if error.errno not in nfs.LOST:
                raise store_failure(f"checking {what}", error) from None
            raise LockLost(f"The lock of directory {directory} was lost, because the NFS server was out of reach for too long; run again.") from None

    with Closing(fd):
        yield check


def _open_directory(directory: str) -> int:
    with store_errors(f"opening the directory {directory}"):
        return open_directory(directory, follow=True)
