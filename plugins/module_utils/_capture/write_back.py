# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Dirty pages are written back before a file is read: only then does the next store through a memory map change the file's times.

A sync of the whole file system does that, but waits for all that other processes have written. It is enough to write back the files that are read: a
file whose times are those of the last scan has no such page, for it was written back when it was last read. So where the first store to a clean page is known
to change the times at once, a few files are written back one by one. Once there are many, one sync is quicker than waiting for each. Other
file systems are synced before the walk: their times may change only then.
"""

from __future__ import annotations

import contextlib
import typing as t

from .._base import kernel
from .._fs.mounts import Kinds

#: File systems for which a test shows both: a store to a clean page changes the times, and writing back the file makes its pages clean. It holds for Btrfs as
#: well, but the device numbers of its subvolumes are those of no mount. It does not hold for an overlay: the pages are those of the file below.
_KINDS = frozenset(("ext4", "xfs"))
#: At most this many files of a file system are written back one by one. On a slow disk, each may take a rotation.
_FILES = 100


class WriteBack:
    """Of one walk. An error is the file system's own trouble; reading will show what of it concerns us."""

    def __init__(self, kinds: Kinds) -> None:
        self._kinds = kinds
        self._synced: t.Set[int] = set()
        self._files: t.Dict[int, int] = {}

    def enter(self, fd: int, device: int) -> None:
        """Before the first look at what is in a directory."""
        if device not in self._synced and self._kinds(device) not in _KINDS:
            self._sync(fd, device)

    def read(self, fd: int, device: int) -> None:
        """Before a file is read."""
        if device in self._synced:
            return
        count = self._files[device] = self._files.get(device, 0) + 1
        if count <= _FILES and self._kinds(device) in _KINDS:
            with contextlib.suppress(OSError):  # as where a filter of system calls does not know this one (seccomp)
                kernel.write_back(fd)
                return
        self._sync(fd, device)

    def _sync(self, fd: int, device: int) -> None:
        self._synced.add(device)
        with contextlib.suppress(OSError):
            kernel.syncfs(fd)
