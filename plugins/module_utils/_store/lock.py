# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Two kernel locks, each held for moments, or never.

The *gate* is shared by the runs that begin: each makes its directory. A process holds it alone while it sets the directories of dead runs apart, changes
the features of the store, or replaces or moves away a damaged file. No process keeps it while it works. The *lock* is that of version 0.1.0, which held it
for as long as a run or a collection took. A store has it only until the first write of this version: `Store.upgrade` waits once for the exclusive lock.
Since then, claims do its work (see `claims`).

The kernel drops both when a process dies, however it dies: there is no stale lock to break. Source: flock(2).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import typing as t

from .._base import lock_file


@contextlib.contextmanager
def taken(store: str, name: str, timeout: float, exclusive: bool = True, write: bool = True) -> t.Iterator[None]:
    """Hold a store's `gate` or `lock` for the context; LockTimeout where others keep it.

    :param timeout: in seconds. :param write: False where nothing may be created (check mode, read-only media); a missing file is then no obstacle.
    """
    mode = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    fd = lock_file(os.path.join(store, name), mode, time.monotonic() + timeout, f"the {name} of store {store}", write)
    try:
        yield
    finally:
        if fd is not None:
            os.close(fd)
