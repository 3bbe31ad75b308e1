# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Waiting for kernel locks (flock(2)), which end with the process that holds them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
import typing as t

from .errors import LockTimeout, StoreError, reason, store_failure
from .files import open_directory

_POLL_FIRST, _POLL_MOST = 0.005, 0.1
#: What a file system says that has no locks.
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


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
                    f"Another run holds {what}; wait for it to end, or raise lock_timeout."
                ) from None
        except OSError as error:
            if error.errno in without:
                return
            raise StoreError(f"Taking {what} failed: {reason(error)}; it needs a file system with locks.") from None
        time.sleep(pause)
        pause = min(pause * 2, _POLL_MOST)


@contextlib.contextmanager
def directory_lock(directory: str, timeout: float) -> t.Iterator[None]:
    """Hold a directory's own lock while the context lasts, where names are settled one at a time; LockTimeout where others keep it.

    On a file system without locks, names are settled one at a time as well.
    """
    try:
        fd = open_directory(directory, follow=True)
    except OSError as error:
        raise store_failure(f"opening the directory {directory}", error) from None
    try:
        wait(fd, fcntl.LOCK_EX, time.monotonic() + timeout, f"the lock of directory {directory}", NO_LOCKS)
        yield
    finally:
        os.close(fd)
