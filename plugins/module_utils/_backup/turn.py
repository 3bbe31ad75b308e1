# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.
"""One at a time among those who name or delete backups of a directory, each for moments: an id that a deletion frees can be given
again within its second, and must not be deleted a second time in the name of its predecessor."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
import typing as t

from .._store.errors import store_failure
from .._store.lock import wait

#: What a file system says that has no locks.
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@contextlib.contextmanager
def turn(directory: str, timeout: float) -> t.Iterator[None]:
    """Hold the backup directory's own lock while the context lasts; LockTimeout where others do not let go of it."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise store_failure(f"opening the backup directory {directory}", error) from None
    try:
        # On a file system without locks, names are taken one at a time as well.
        wait(fd, fcntl.LOCK_EX, time.monotonic() + timeout, f"the lock of backup directory {directory}", NO_LOCKS)
        yield
    finally:
        os.close(fd)
